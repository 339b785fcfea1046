use std::io;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tui_input::{Input, InputRequest};

use super::history::History;

/// Line editor: the line being typed, and the effect of keys on it.
pub(super) struct Editor {
    input: Input,
    history: History,
    state: State,
    /// Lines completed with Enter, oldest first.
    entered: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    Typing,
    /// Shows the line `at` of the history. `draft` is the line that was typed before.
    Browsing {
        at: usize,
        draft: String,
    },
    /// Searches the history backwards for `query`, from the line `at`. `draft` is the line that was
    /// typed before.
    Searching {
        query: String,
        at: usize,
        found: bool,
        draft: String,
    },
}

/// A key that the editor leaves to its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    None,
    /// Ctrl-C, or Ctrl-D on an empty line.
    End,
    /// Ctrl-L.
    Clear,
    /// Ctrl-Z.
    Suspend,
}

impl Editor {
    pub(super) fn new(history: History) -> Self {
        Self { input: Input::default(), history, state: State::Typing, entered: Vec::new() }
    }

    /// Handles events up to the first request to the caller. Inserts typed characters in batches,
    /// because the cost of an insertion is proportional to the length of the line.
    pub(super) fn handle(&mut self, events: &mut impl Iterator<Item = Event>) -> Request {
        let mut typed = String::new();
        for event in events {
            match character(&event) {
                Some(character) if !matches!(self.state, State::Searching { .. }) => typed.push(character),
                _ => {
                    self.insert(&std::mem::take(&mut typed));
                    let request = self.handle_one(event);
                    if request != Request::None {
                        return request;
                    }
                }
            }
        }
        self.insert(&typed);
        Request::None
    }

    fn handle_one(&mut self, event: Event) -> Request {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.key(key),
            Event::Paste(text) => {
                self.state = State::Typing;
                self.insert(&text);
                Request::None
            }
            _ => Request::None,
        }
    }

    /// Returns the lines entered since the previous call.
    pub(super) fn take_entered(&mut self) -> Vec<String> {
        std::mem::take(&mut self.entered)
    }

    pub(super) fn remember(&mut self, line: &str) -> io::Result<()> {
        self.history.add(line)
    }

    /// Returns the prompt in front of the line.
    pub(super) fn prompt(&self) -> String {
        match &self.state {
            State::Searching { query, found: true, .. } => format!("search {query:?}: "),
            State::Searching { query, .. } => format!("no {query:?}: "),
            _ => "> ".into(),
        }
    }

    /// Returns the parts of the line before and after the cursor.
    pub(super) fn line(&self) -> (&str, &str) {
        let line = self.input.value();
        let cursor = line.char_indices().nth(self.input.cursor()).map_or(line.len(), |(at, _)| at);
        line.split_at(cursor)
    }

    fn key(&mut self, key: KeyEvent) -> Request {
        use InputRequest::*;
        use KeyCode::{Backspace, Char, Delete, Down, End, Enter, Home, Left, Right, Up};

        let ctrl = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        if self.search(key.code, ctrl, alt) {
            return Request::None;
        }
        let edit = match key.code {
            Char('c') if ctrl => return Request::End,
            Char('d') if ctrl && self.input.value().is_empty() => return Request::End,
            Char('l') if ctrl => return Request::Clear,
            Char('z') if ctrl => return Request::Suspend,
            Enter => return self.enter(),
            Char('j' | 'm') if ctrl => return self.enter(),
            Up => return self.browse(true),
            Char('p') if ctrl => return self.browse(true),
            Down => return self.browse(false),
            Char('n') if ctrl => return self.browse(false),
            Left if ctrl || alt => GoToPrevWord,
            Right if ctrl || alt => GoToNextWord,
            Char('b') if alt => GoToPrevWord,
            Char('f') if alt => GoToNextWord,
            Left => GoToPrevChar,
            Right => GoToNextChar,
            Char('b') if ctrl => GoToPrevChar,
            Char('f') if ctrl => GoToNextChar,
            Home => GoToStart,
            End => GoToEnd,
            Char('a') if ctrl => GoToStart,
            Char('e') if ctrl => GoToEnd,
            Backspace if alt => DeletePrevWord,
            Char('w') if ctrl => DeletePrevWord,
            Char('d') if alt => DeleteNextWord,
            Backspace => DeletePrevChar,
            Char('h') if ctrl => DeletePrevChar,
            Delete => DeleteNextChar,
            Char('d') if ctrl => DeleteNextChar,
            Char('k') if ctrl => DeleteTillEnd,
            Char('u') if ctrl => DeleteFromStart,
            Char('y') if ctrl => Yank,
            _ => {
                // A character that ended a search is typed as well.
                if let Some(character) = character(&Event::Key(key)) {
                    self.insert(character.encode_utf8(&mut [0; 4]));
                }
                return Request::None;
            }
        };
        self.input.handle(edit);
        Request::None
    }

    fn enter(&mut self) -> Request {
        self.state = State::Typing;
        self.entered.push(self.input.value_and_reset());
        Request::None
    }

    /// Inserts text at the cursor. Each line end in the text enters a line.
    fn insert(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut parts = text.split('\n');
        let (before, after) = self.line();
        let (mut line, after) = ([before, parts.next().unwrap_or_default()].concat(), after.to_owned());
        for next in parts {
            self.entered.push(std::mem::replace(&mut line, next.to_owned()));
        }
        let cursor = line.chars().count();
        // `with_value` keeps the erased text for Ctrl-Y.
        self.input = std::mem::take(&mut self.input).with_value(line + &after);
        self.input.handle(InputRequest::SetCursor(cursor));
    }

    /// Moves to the previous or next line of the history. The draft follows its last line.
    fn browse(&mut self, back: bool) -> Request {
        let lines = self.history.lines();
        let (at, draft) = match &self.state {
            State::Browsing { at, draft } => (*at, draft.clone()),
            _ => (lines.len(), self.input.value().to_owned()),
        };
        let to = if back { at.checked_sub(1) } else { Some(at + 1).filter(|to| *to <= lines.len()) };
        if let Some(to) = to {
            self.input = Input::new(lines.get(to).unwrap_or(&draft).clone());
            self.state = State::Browsing { at: to, draft };
        }
        Request::None
    }

    /// Begins or continues a search. Returns `false` if the key does not belong to a search; the
    /// key then ends the search with the line found, and has its usual effect.
    fn search(&mut self, key: KeyCode, ctrl: bool, alt: bool) -> bool {
        let newest = self.history.lines().len();
        let State::Searching { query, at, found, draft } = &mut self.state else {
            let begins = ctrl && key == KeyCode::Char('r');
            if begins {
                let draft = self.input.value().to_owned();
                self.state = State::Searching { query: String::new(), at: newest, found: true, draft };
            }
            return begins;
        };
        let from = match key {
            // Find the next older match.
            KeyCode::Char('r') if ctrl => *at,
            KeyCode::Char(typed) if !ctrl && !alt => {
                query.push(typed);
                (*at + 1).min(newest)
            }
            KeyCode::Backspace => {
                query.pop();
                newest
            }
            KeyCode::Char('h') if ctrl => {
                query.pop();
                newest
            }
            KeyCode::Esc => return self.cancel_search(),
            KeyCode::Char('g') if ctrl => return self.cancel_search(),
            _ => {
                self.state = State::Typing;
                return false;
            }
        };
        let hit = self.history.lines()[..from].iter().rposition(|line| line.contains(&*query));
        *found = hit.is_some() || query.is_empty();
        match hit {
            _ if query.is_empty() => self.input = Input::new(draft.clone()),
            Some(hit) => {
                *at = hit;
                self.input = Input::new(self.history.lines()[hit].clone());
            }
            None => {}
        }
        true
    }

    /// Restores the line that was typed before the search.
    fn cancel_search(&mut self) -> bool {
        if let State::Searching { draft, .. } = std::mem::replace(&mut self.state, State::Typing) {
            self.input = Input::new(draft);
        }
        true
    }
}

/// Returns the character that a key types.
fn character(event: &Event) -> Option<char> {
    let Event::Key(key) = event else { return None };
    let is_control = key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT);
    match key.code {
        _ if key.kind == KeyEventKind::Release => None,
        KeyCode::Char(character) if !is_control => Some(character),
        KeyCode::Tab => Some('\t'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types keys (`^x` is Ctrl-x, `<up>` is Up) and returns the line with `_` at the cursor.
    fn typed(editor: &mut Editor, keys: &str) -> String {
        let mut events = Vec::new();
        let mut keys = keys.chars();
        while let Some(key) = keys.next() {
            let (code, modifiers) = match key {
                '^' => (KeyCode::Char(keys.next().unwrap()), KeyModifiers::CONTROL),
                '<' => {
                    let name: String = keys.by_ref().take_while(|c| *c != '>').collect();
                    let code = match name.as_str() {
                        "up" => KeyCode::Up,
                        "down" => KeyCode::Down,
                        "left" => KeyCode::Left,
                        "back" => KeyCode::Backspace,
                        "enter" => KeyCode::Enter,
                        "esc" => KeyCode::Esc,
                        _ => panic!("{name}"),
                    };
                    (code, KeyModifiers::NONE)
                }
                key => (KeyCode::Char(key), KeyModifiers::NONE),
            };
            events.push(Event::Key(KeyEvent::new(code, modifiers)));
        }
        assert_eq!(editor.handle(&mut events.into_iter()), Request::None);
        shown(editor)
    }

    fn shown(editor: &Editor) -> String {
        let (before, after) = editor.line();
        format!("{}{before}_{after}", editor.prompt())
    }

    fn with_history(lines: &[&str]) -> Editor {
        let mut editor = Editor::new(History::default());
        lines.iter().for_each(|line| editor.remember(line).unwrap());
        editor
    }

    #[test]
    fn keys_edit_the_line() {
        for (keys, expected) in [
            ("abc<left>x", "> abx_c"),
            ("abc^ax^ey", "> xabcy_"),
            ("one two^w", "> one _"),
            ("one two^a^k^y!", "> one two!_"),
            ("one two^wx^w^y", "> one x_"),
            ("ab^ux^y<enter>^y", "> ab_"),
            ("abc<left>^u", "> _c"),
            ("世界<back>", "> 世_"),
            ("e\u{301}x<back><back>", "> _"),
            ("abc<enter>d", "> d_"),
        ] {
            assert_eq!(typed(&mut with_history(&[]), keys), expected, "{keys}");
        }
    }

    #[test]
    fn up_and_down_browse_history_and_keep_draft() {
        let mut editor = with_history(&["one", "two", "two", " secret", ""]);
        for (keys, expected) in [
            ("dr<up>", "> two_"),
            ("<up>", "> one_"),
            ("<up>", "> one_"),
            ("<down><down>", "> dr_"),
            ("<down>", "> dr_"),
            ("^p^p!", "> one!_"),
        ] {
            assert_eq!(typed(&mut editor, keys), expected, "{keys}");
        }
    }

    #[test]
    fn search_finds_latest_matching_line() {
        let mut editor = with_history(&["get a", "set a 1", "get b"]);
        for (keys, expected) in [
            ("x^r", "search \"\": x_"),
            ("g", "search \"g\": get b_"),
            ("^r", "search \"g\": get a_"),
            ("^r", "no \"g\": get a_"),
            ("<esc>", "> x_"),
            ("^rset", "search \"set\": set a 1_"),
            ("!", "no \"set!\": set a 1_"),
            ("<back>", "search \"set\": set a 1_"),
            ("<left>0", "> set a 0_1"),
            ("^rge<enter>", "> _"),
        ] {
            assert_eq!(typed(&mut editor, keys), expected, "{keys}");
        }
        assert_eq!(editor.take_entered(), ["get b"]);
    }

    #[test]
    fn pasted_text_enters_each_of_its_lines() {
        let mut editor = with_history(&[]);
        typed(&mut editor, "ad<left>");
        editor.handle(&mut [Event::Paste("1\r\n2\r\r3".into())].into_iter());
        assert_eq!(editor.take_entered(), ["a1", "2", ""]);
        assert_eq!(shown(&editor), "> 3_d");
    }
}
