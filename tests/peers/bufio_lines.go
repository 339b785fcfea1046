// What Go's bufio.Scanner makes of some reads. tests/peers/mod.rs explains the lines in and out.
package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"reflect"
	"strconv"
	"strings"
)

// reads gives one of its pieces at each Read, then EOF.
type reads struct {
	pieces [][]byte
	atEOF  func()
}

func (r *reads) Read(buffer []byte) (int, error) {
	if len(r.pieces) == 0 {
		r.atEOF()
		return 0, io.EOF
	}
	n := copy(buffer, r.pieces[0])
	if r.pieces[0] = r.pieces[0][n:]; len(r.pieces[0]) == 0 {
		r.pieces = r.pieces[1:]
	}
	return n, nil
}

// held is how many bytes the scanner has read and not handed over.
func held(scanner *bufio.Scanner) string {
	fields := reflect.ValueOf(scanner).Elem()
	return fmt.Sprintf("held=%d", fields.FieldByName("end").Int()-fields.FieldByName("start").Int())
}

func told(limit string, pieces [][]byte) (events []string) {
	source := &reads{pieces: pieces}
	scanner := bufio.NewScanner(source)
	if n, err := strconv.Atoi(limit); err == nil {
		scanner.Buffer(nil, n)
	}
	ended := false
	source.atEOF = func() {
		if !ended {
			events = append(events, held(scanner), "eof")
			ended = true
		}
	}
	for scanner.Scan() {
		events = append(events, "line="+hex.EncodeToString(scanner.Bytes()))
	}
	if scanner.Err() != nil {
		events = append(events, "error")
	}
	if !ended {
		events = append(events, "end", held(scanner))
	}
	return events
}

func main() {
	rows := bufio.NewReader(os.Stdin)
	for {
		row, err := rows.ReadString('\n')
		if err != nil {
			return
		}
		words := strings.Fields(row)
		if words[0] != "read" {
			fmt.Println("-")
			continue
		}
		var pieces [][]byte
		for _, word := range words[2:] {
			piece, err := hex.DecodeString(word)
			if err != nil {
				panic(err)
			}
			pieces = append(pieces, piece)
		}
		fmt.Println(strings.Join(told(words[1], pieces), " "))
	}
}
