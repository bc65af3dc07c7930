package account

import (
	_ "embed" // the common words
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The length of a password in characters, after its normalisation. The upper bound keeps requests small.
const (
	MinPassword = 12
	MaxPassword = 128
)

// The reasons why a password is refused.
var (
	ErrPasswordLength = fmt.Errorf("must have %d to %d characters", MinPassword, MaxPassword)
	ErrPasswordCommon = errors.New("is easy to guess: it is made of common words, names, years, repetitions or rows of keys; " +
		"use the generator of a password manager, or four words that have nothing to do with each other")
	ErrPasswordSame = errors.New("is the old password: choose another one")
)

// commonWords are the words of which people make passwords, written for this project. A list of whole
// passwords would need each with every year and every exclamation mark behind it.
//
//go:embed common_words.txt
var commonWords string

// fewestParts is of how many parts a password must consist at least. A common word, a year, a row of keys
// and a repetition are one part each, like any single character. What separates them does not count.
const fewestParts = 6

const separators = " .-_@"

// checkPassword refuses a password that is too short, too long or common. own are the person's e-mail and
// names: what is made of them is common too.
func checkPassword(password string, own ...string) error {
	text := normalisePassword(password)
	if n := utf8.RuneCountInString(text); n < MinPassword || n > MaxPassword {
		return ErrPasswordLength
	}
	if countParts(text, wordsWith(own)) < fewestParts {
		return ErrPasswordCommon
	}
	return nil
}

// wordsWith are the common words and the words in these texts.
func wordsWith(own []string) map[string]bool {
	words := map[string]bool{}
	for _, text := range append(own, commonWords) {
		for _, word := range strings.FieldsFunc(plain(text), func(r rune) bool { return !unicode.IsLetter(r) }) {
			if utf8.RuneCountInString(word) >= shortestWord {
				words[word] = true
			}
		}
	}
	return words
}

const (
	shortestWord = 3
	longestWord  = 24
)

// countParts returns the smallest number of parts that a text can be cut into.
func countParts(text string, words map[string]bool) int {
	letters, read := []rune(plain(text)), []rune(plain(unmask(text)))
	fewest := make([]int, len(letters)+1)
	for end := 1; end <= len(letters); end++ {
		fewest[end] = fewest[end-1]
		if !strings.ContainsRune(separators, letters[end-1]) {
			fewest[end]++
		}
		for start := 0; start <= end-shortestWord; start++ {
			if fewest[start]+1 < fewest[end] && isOnePart(letters, read, start, end, words) {
				fewest[end] = fewest[start] + 1
			}
		}
	}
	return fewest[len(letters)]
}

// isOnePart reports whether a stretch of the text is easy to guess as a whole. read is the text with the
// letters that digits and signs often stand for.
func isOnePart(letters, read []rune, start, end int, words map[string]bool) bool {
	part := letters[start:end]
	if end-start <= longestWord && (words[string(part)] || words[string(read[start:end])]) {
		return true
	}
	return isYear(string(part)) || isRow(part) || isRepetition(part)
}

func isYear(text string) bool {
	return len(text) == 4 && (text[:2] == "19" || text[:2] == "20") && strings.Trim(text, "0123456789") == ""
}

// rows are the rows of keyboards, and the columns that fingers run down.
var rows = []string{
	"1234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "azertyuiop", "qsdfghjklm", "qwertzuiop", "yxcvbnm",
	"1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik9ol0p", "!@#$%^&*()",
}

// isRow reports whether each letter follows the one before: in the alphabet, by the same step up or down, or
// on a keyboard.
func isRow(part []rune) bool {
	step := part[1] - part[0]
	even := step == 1 || step == -1
	for i := range part[1:] {
		even = even && part[i+1]-part[i] == step
	}
	if even {
		return true
	}
	for _, row := range rows {
		if strings.Contains(row, string(part)) || strings.Contains(row, reversed(part)) {
			return true
		}
	}
	return false
}

// isRepetition reports whether the part is the same few letters again and again.
func isRepetition(part []rune) bool {
	for unit := 1; unit <= len(part)/2; unit++ {
		same := true
		for i := unit; i < len(part) && same; i++ {
			same = part[i] == part[i-unit]
		}
		if same && (unit <= 4 || unit == len(part)/2) {
			return len(part) >= shortestWord
		}
	}
	return false
}

func reversed(part []rune) string {
	var b strings.Builder
	for i := len(part) - 1; i >= 0; i-- {
		b.WriteRune(part[i])
	}
	return b.String()
}

func plain(text string) string { return strings.ToLower(text) }

// unmask puts the letters in the place of what looks like them: p@ssw0rd is password.
func unmask(text string) string {
	return strings.NewReplacer("@", "a", "4", "a", "8", "b", "3", "e", "6", "g", "1", "i", "!", "i", "0", "o", "$", "s", "5", "s", "7", "t",
		"2", "z").Replace(text)
}
