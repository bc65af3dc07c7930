package db

import (
	"context"

	"github.com/vantrexia/vantrexia/keyring"
)

// madeTable is a table of tests, whose primary key has two columns, and whose practice stands in no column.
func madeTable() sealedTable {
	return sealedTable{
		name:     "made",
		key:      []keyColumn{{"owner", "uuid"}, {"ordinal", "integer"}},
		practice: "(SELECT 'FFHEDD'::text)",
		columns: []sealedColumn{{
			name: "name",
			indexes: []blindIndex{{
				name:  "name_index",
				what:  "made.name",
				value: func(plain []byte) (string, error) { return string(plain), nil },
			}},
		}},
	}
}

// ReencryptMade goes through the table of tests, and returns how many rows it has changed.
func (s *Store) ReencryptMade(ctx context.Context) (int64, error) {
	w := walk{Store: s, report: func(int64) {}}
	err := w.through(ctx, madeTable())
	return w.changed, err
}

// SealMade seals a name for the table of tests, and returns its index.
func (s *Store) SealMade(row, name string) ([]byte, keyring.Index, error) {
	sealed, err := s.keys.Seal(keyring.Cell{Table: "made", Column: "name", Practice: "FFHEDD", Row: row}, []byte(name))
	if name == "" {
		return sealed, keyring.Index{}, err
	}
	return sealed, s.keys.Index("made.name", "FFHEDD", name), err
}
