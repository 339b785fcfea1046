// Prints the results of Go's bufio.Scanner for a sequence of reads. tests/peers/mod.rs describes the
// input and the output.
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

// reads returns one of its pieces per Read, then io.EOF.
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

// held returns the number of bytes that the scanner has buffered.
func held(scanner *bufio.Scanner) string {
	fields := reflect.ValueOf(scanner).Elem()
	return fmt.Sprintf("held=%d", fields.FieldByName("end").Int()-fields.FieldByName("start").Int())
}

func scan(limit string, pieces [][]byte) (events []string) {
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
		fmt.Println(strings.Join(scan(words[1], pieces), " "))
	}
}
