package db

// sealedTable is a table with sealed columns.
type sealedTable struct {
	name     string
	key      []keyColumn // the primary key, in the order of its index
	practice string      // SQL: the practice code of a row t
	columns  []sealedColumn
	// clear is SQL that reports whether something of a row t is in clear. An index has only those rows. Empty:
	// nothing ever is.
	clear string
}

type keyColumn struct{ name, kind string }

// sealedColumn is a column that is sealed for its [keyring.Cell].
type sealedColumn struct {
	name string
	// clear is SQL for what is to be sealed, where a row t has it in clear; null where it is sealed already.
	clear string
	// cleared are the columns that had it in clear. They are null afterwards.
	cleared []string
	// indexes are the blind indexes of what is in the column.
	indexes []blindIndex
}

// blindIndex is a pair of columns, name_a and name_b, with the [keyring.Index] of a value.
type blindIndex struct {
	name  string
	what  string
	value func(plain []byte) (string, error) // empty: the row has none, and no index
}

// sealedTables are all of them. TestEverySealedColumnIsKnown finds the one that is forgotten here.
func sealedTables() []sealedTable {
	id := []keyColumn{{"id", "uuid"}}
	return []sealedTable{
		{
			name:     "api_keys",
			key:      id,
			practice: "t.practice_code",
			columns: []sealedColumn{
				{name: "devices", clear: "to_json(t.plain_devices)::text", cleared: []string{"plain_devices"}},
			},
			clear: "(t.plain_devices IS NOT NULL)",
		},
		{
			name:     "observations",
			key:      id,
			practice: "t.practice_code",
			columns: []sealedColumn{
				{
					name: "reading",
					clear: "CASE WHEN t.reading IS NULL " +
						"THEN json_build_object('device', t.device, 'measured', t.measured)::text END",
					cleared: []string{"device", "measured"},
				},
				{name: "resource", clear: "t.plain_resource::text", cleared: []string{"plain_resource"}},
			},
			clear: "(t.reading IS NULL OR t.plain_resource IS NOT NULL)",
		},
		{
			name:     "patients",
			key:      id,
			practice: "t.practice_code",
			columns: []sealedColumn{
				{name: "demographics", indexes: []blindIndex{
					{name: "mrn_index", what: indexedMRN, value: mrnIn},
					{name: "external_id_index", what: indexedExternalID, value: externalIDIn},
				}},
			},
		},
		{
			name:     "patient_charts",
			key:      id,
			practice: "t.practice_code",
			columns: []sealedColumn{
				{name: "ecw_patient_id", indexes: []blindIndex{
					{name: "external_id_index", what: indexedExternalID, value: func(plain []byte) (string, error) { return string(plain), nil }},
				}},
			},
		},
		{
			name:     "patient_import_items",
			key:      []keyColumn{{"import_id", "uuid"}, {"ordinal", "integer"}},
			practice: "(SELECT m.practice_code FROM patient_imports m WHERE m.id = t.import_id)",
			columns:  []sealedColumn{{name: "ecw_fhir_id"}},
		},
		{
			name:     "users",
			key:      id,
			practice: "t.practice_code",
			columns: []sealedColumn{
				{name: "profile", indexes: []blindIndex{{name: "email_index", what: indexUserEmail, value: emailIn}}},
				{name: "totp_secret"},
			},
		},
		{
			name:     "oidc_sign_ins",
			key:      []keyColumn{{"state_hash", "bytea"}},
			practice: "t.practice_code",
			columns:  []sealedColumn{{name: "secrets"}},
		},
		{
			name:     markCell.Table,
			key:      []keyColumn{{"one", "boolean"}},
			practice: "''",
			columns:  []sealedColumn{{name: markCell.Column}},
		},
	}
}

// digestColumn is a column with a keyed hash of something that is not stored. It cannot be computed under another
// key: its rows are pruned in the end.
type digestColumn struct{ table, column string }

func digestColumns() []digestColumn {
	return []digestColumn{
		{"idempotency_keys", "key"},
		{"idempotency_keys", "request_hash"},
		{"sign_in_failures", "email_key"},
		{markCell.Table, "digest"}, // which Reencrypt computes anew, since its text is known
	}
}
