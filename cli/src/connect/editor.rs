use std::io;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tui_input::{Input, InputRequest};

use super::history::History;

/// The line being typed: what keys do to it.
pub(super) struct Editor {
    input: Input,
    history: History,
    state: State,
    /// Lines whose Enter was pressed, the latest last.
    entered: Vec<String>,
}

#[derive(Clone, PartialEq, Eq)]
enum State {
    Typing,
    /// Through the history, at this line of it; `draft` is what had been typed before.
    Browsing {
        at: usize,
        draft: String,
    },
    /// For `query`, up to this line of the history; `draft` is what had been typed before.
    Searching {
        query: String,
        at: usize,
        found: bool,
        draft: String,
    },
}

/// What a key asks of those who hold more than the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    None,
    /// Ctrl-C, or Ctrl-D where nothing is typed.
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

    /// Takes events up to the first that asks something of the caller, or all of them. Typed
    /// characters are inserted together, because each insertion costs as much as the line is long.
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

    /// The lines that were entered since it was last asked.
    pub(super) fn take_entered(&mut self) -> Vec<String> {
        std::mem::take(&mut self.entered)
    }

    pub(super) fn remember(&mut self, line: &str) -> io::Result<()> {
        self.history.add(line)
    }

    /// What stands before the line.
    pub(super) fn prompt(&self) -> String {
        match &self.state {
            State::Searching { query, found: true, .. } => format!("search {query:?}: "),
            State::Searching { query, .. } => format!("no {query:?}: "),
            _ => "> ".into(),
        }
    }

    /// The line before and behind the cursor.
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
                // A key may end a search and be typed.
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

    /// Text with line ends in it is that many lines.
    fn insert(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let text = text.replace("\r\n", "\n").replace('\r', "\n");
        let mut parts = text.split('\n');
        let (before, behind) = self.line();
        let (mut line, behind) = ([before, parts.next().unwrap_or_default()].concat(), behind.to_owned());
        for next in parts {
            self.entered.push(std::mem::replace(&mut line, next.to_owned()));
        }
        let cursor = line.chars().count();
        // Keeps what was erased, for Ctrl-Y.
        self.input = std::mem::take(&mut self.input).with_value(line + &behind);
        self.input.handle(InputRequest::SetCursor(cursor));
    }

    /// To the line before or behind in the history; behind its last is what had been typed.
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

    /// What a key means to a search, or where it begins one. Any other key ends the search with what it has found, and then
    /// does what it always does.
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
            // The next one back.
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
            KeyCode::Esc => return self.give_up(),
            KeyCode::Char('g') if ctrl => return self.give_up(),
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

    /// Back to what had been typed before the search.
    fn give_up(&mut self) -> bool {
        if let State::Searching { draft, .. } = std::mem::replace(&mut self.state, State::Typing) {
            self.input = Input::new(draft);
        }
        true
    }
}

/// The character that a key types.
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

    /// Types, with `^x` for Ctrl-x and `<up>` and the like, and gives the line with `_` at the cursor.
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
        let (before, behind) = editor.line();
        format!("{}{before}_{behind}", editor.prompt())
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
    fn up_and_down_go_through_the_history_and_back_to_what_was_typed() {
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
    fn a_search_finds_the_latest_line_with_what_is_typed() {
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
    fn what_is_pasted_is_as_many_lines_as_it_has() {
        let mut editor = with_history(&[]);
        typed(&mut editor, "ad<left>");
        editor.handle(&mut [Event::Paste("1\r\n2\r\r3".into())].into_iter());
        assert_eq!(editor.take_entered(), ["a1", "2", ""]);
        assert_eq!(shown(&editor), "> 3_d");
    }
}
