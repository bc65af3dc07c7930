package db_test

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/keyring/keyringtest"
)

// The accounts of an installation, as deploy/create-databases.sh makes them. Roles belong to the server, so those of all
// tests are the same; the owner is not, because each test gives it a database.
const makeAccounts = `
DO $$
BEGIN
    CREATE ROLE vantrexia_runtime LOGIN PASSWORD 'secret';
    CREATE ROLE vantrexia_readonly;
    CREATE ROLE reader LOGIN PASSWORD 'secret' IN ROLE vantrexia_readonly;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
END $$`

// installation is a database that an owner has migrated.
type installation struct {
	t                        *testing.T
	owner, runtime, readonly string // URLs
	super                    *pgx.Conn
}

func install(t *testing.T) *installation {
	t.Helper()
	super := stack.Postgres(t)
	in := &installation{t: t, super: connect(t, super)}
	owner := "owner_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	for _, statement := range []string{
		makeAccounts,
		"CREATE ROLE " + owner + " LOGIN PASSWORD 'secret'",
		"ALTER DATABASE " + in.super.Config().Database + " OWNER TO " + owner,
	} {
		in.do(in.super, statement)
	}

	as := func(account string) string {
		u, err := url.Parse(super)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword(account, "secret")
		return u.String()
	}
	in.owner, in.runtime, in.readonly = as(owner), as("vantrexia_runtime"), as("reader")
	in.migrate()
	return in
}

func (in *installation) migrate() {
	in.t.Helper()
	if _, err := storeOf(in.t, in.owner).Migrate(in.t.Context()); err != nil {
		in.t.Fatal(err)
	}
}

func (in *installation) do(conn *pgx.Conn, statement string) {
	in.t.Helper()
	if _, err := conn.Exec(in.t.Context(), statement); err != nil {
		in.t.Fatalf("%s: %v", statement, err)
	}
}

func storeOf(t *testing.T, url string) *db.Store {
	t.Helper()
	store, err := db.Open(t.Context(), url, keyringtest.Shared())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	return store
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// mustRefuse fails the test unless the account may not do it.
func mustRefuse(t *testing.T, conn *pgx.Conn, statement string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), statement)
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "42501" {
		t.Errorf("%s: %v, want insufficient_privilege", statement, err)
	}
}

// auditLike are tables as the audit trail's: one by months, and one beside it.
const auditLike = `
CREATE TABLE audit_made (id bigint, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE audit_made_2026_11 PARTITION OF audit_made FOR VALUES FROM ('2026-11-01') TO ('2026-12-01');
CREATE TABLE audit_other (id bigint GENERATED ALWAYS AS IDENTITY, note text NOT NULL);`

// TestTheRuntimeAccountServesAndErasesNothing: API and workers work as an account that cannot erase what was done.
func TestTheRuntimeAccountServesAndErasesNothing(t *testing.T) {
	t.Parallel()
	in := install(t)
	in.do(connect(t, in.owner), auditLike)
	in.migrate() // which every upgrade does

	// What a day brings. The tests of packages api, worker, gate and account run as this account too.
	store := storeOf(t, in.runtime)
	ctx := t.Context()
	for _, check := range []func(context.Context) error{store.CheckMigrated, store.CheckKeyring} {
		if err := check(ctx); err != nil {
			t.Fatal(err)
		}
	}
	o := reading(t, store, `{"value": 1}`)
	attempt := db.StartAttemptParams{
		TransmissionID: transmission(t, store, o).ID,
		ObservationID:  o.ID,
		Delivery:       1,
		Number:         1,
		StartedAt:      time.Now(),
	}
	if err := db.Written(store.StartAttempt(ctx, attempt)); err != nil {
		t.Error(err)
	}
	user := addUser(t, store, "nora@example.com")
	if _, err := store.Reencrypt(ctx, func(int64, int64) {}); err != nil {
		t.Error(err)
	}
	if _, err := store.RevealingLogSettings(ctx); err != nil {
		t.Error(err)
	}
	for _, table := range prunedTables() {
		table.prune(t, store, time.Now(), 10)
	}

	conn := connect(t, in.runtime)
	in.do(conn, "INSERT INTO account_events (practice_code, user_id, action, actor, address, detail, reason) "+
		"VALUES ('FFHEDD', '"+user.ID.String()+"', 'added', 'local', '', '', '')")
	in.do(conn, "INSERT INTO audit_made VALUES (1, '2026-11-02')")
	in.do(conn, "INSERT INTO audit_other (note) VALUES ('n')")
	in.do(conn, "SELECT * FROM audit_made, audit_other, account_events")

	for _, table := range []string{"account_events", "audit_made", "audit_made_2026_11", "audit_other"} {
		for _, statement := range []string{
			"UPDATE %s SET id = DEFAULT", "DELETE FROM %s", "TRUNCATE %s CASCADE", "DROP TABLE %s CASCADE",
			"ALTER TABLE %s ADD COLUMN more text", "ALTER TABLE %s DISABLE TRIGGER ALL", "ALTER TABLE %s OWNER TO vantrexia_runtime",
			"SELECT * FROM %s FOR UPDATE", "DO $$ BEGIN LOCK TABLE %s IN ACCESS EXCLUSIVE MODE; END $$", "CREATE INDEX ON %s (id)",
			"CREATE RULE away AS ON INSERT TO %s DO INSTEAD NOTHING",
			"CREATE TRIGGER away BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
		} {
			mustRefuse(t, conn, strings.ReplaceAll(statement, "%s", table))
		}
	}
	owner := in.ownerName()
	for _, statement := range []string{
		"SELECT * FROM audit_made_2026_11", "INSERT INTO audit_made_2026_11 VALUES (1, '2026-11-02')",
		"ALTER TABLE audit_made DETACH PARTITION audit_made_2026_11",
		"CREATE TABLE more (id int)", "CREATE TEMPORARY TABLE more (id int)", "CREATE SCHEMA more",
		"CREATE FUNCTION more() RETURNS int LANGUAGE sql AS 'SELECT 1'", "CREATE EXTENSION pgcrypto", "CREATE ROLE more",
		"SET ROLE " + owner, "SET SESSION AUTHORIZATION " + owner, "SET session_replication_role = replica",
		"SELECT * FROM pg_authid", "ALTER ROLE vantrexia_runtime SUPERUSER", "GRANT " + owner + " TO vantrexia_runtime",
		"DROP TABLE patients", "TRUNCATE patients CASCADE", "DROP FUNCTION refuse_change() CASCADE",
		"UPDATE goose_db_version SET is_applied = false", "DELETE FROM goose_db_version",
		"DROP DATABASE " + in.super.Config().Database, "COPY patients TO PROGRAM 'cat'",
	} {
		mustRefuse(t, conn, statement)
	}

	if may, err := store.MayErase(ctx); err != nil || may {
		t.Errorf("it may erase: %t, %v", may, err)
	}
	for _, url := range []string{in.owner, in.super.Config().ConnString()} {
		if may, err := storeOf(t, url).MayErase(ctx); err != nil || !may {
			t.Errorf("the owner and a superuser may not: %t, %v", may, err)
		}
	}
	if _, err := store.Migrate(ctx); !errors.Is(err, db.ErrNotOwner) {
		t.Errorf("it migrates: %v", err)
	}
}

// TestEveryTableIsGranted looks at each table that there is: one of the audit trail, which is for adding, or one that
// processes write.
func TestEveryTableIsGranted(t *testing.T) {
	t.Parallel()
	in := install(t)
	rows, err := in.super.Query(t.Context(), `
SELECT relname, relispartition, (
    SELECT coalesce(string_agg(p, ' ' ORDER BY p), '')
    FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
    WHERE has_table_privilege('vantrexia_runtime', oid, p)
)
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')`)
	if err != nil {
		t.Fatal(err)
	}
	var table, has string
	var isPartition bool
	seen := 0
	_, err = pgx.ForEachRow(rows, []any{&table, &isPartition, &has}, func() error {
		seen++
		want := "DELETE INSERT SELECT UPDATE"
		switch proof := table == "account_events" || strings.HasPrefix(table, "audit_"); {
		case isPartition:
			want = ""
		case proof:
			want = "INSERT SELECT"
		case table == "goose_db_version":
			want = "SELECT"
		}
		if has != want {
			t.Errorf("%s: the runtime account may %s, want %s", table, has, want)
		}
		return nil
	})
	if err != nil || seen < 20 {
		t.Errorf("%d tables, %v", seen, err)
	}
}

// TestPeopleWhoLookChangeNothing: nor do they see what opens an account, or what stands in clear until it is sealed.
func TestPeopleWhoLookChangeNothing(t *testing.T) {
	t.Parallel()
	in := install(t)
	in.do(connect(t, in.owner), auditLike)
	in.migrate()
	conn := connect(t, in.readonly)
	for _, statement := range []string{
		"SELECT * FROM transmissions JOIN transmission_attempts ON id = transmission_id", "SELECT count(*) FROM patients",
		"SELECT status, reading FROM observations JOIN transmissions t ON observation_id = t.id", "SELECT id, role, disabled_at FROM users",
		"SELECT * FROM account_events, audit_made, audit_other", "SELECT * FROM ecw_gates", "SELECT name, prefix FROM api_keys",
	} {
		in.do(conn, statement)
	}
	for _, statement := range []string{
		"SELECT * FROM users", "SELECT password_hash FROM users", "SELECT totp_secret FROM users", "SELECT * FROM refresh_tokens",
		"SELECT key_hash FROM api_keys", "SELECT plain_devices FROM api_keys", "SELECT measured FROM observations",
		"SELECT * FROM idempotency_keys", "SELECT * FROM oidc_sign_ins", "SELECT * FROM keyring_mark", "SELECT * FROM pg_authid",
		"SELECT nextval('transmission_numbers')", "CREATE TABLE more (id int)", "CREATE TEMPORARY TABLE more (id int)",
		"SELECT * FROM audit_made_2026_11", "SELECT id FROM transmissions FOR UPDATE", "SET ROLE vantrexia_runtime",
		"UPDATE users SET role = 'admin'",
	} {
		mustRefuse(t, conn, statement)
	}

	// Whatever tables and columns there will be.
	rows, err := in.super.Query(t.Context(), `
SELECT c.relname || '.' || a.attname,
    has_column_privilege('reader', c.oid, a.attnum, 'SELECT'),
    has_column_privilege('reader', c.oid, a.attnum, 'INSERT, UPDATE, REFERENCES')
        OR has_table_privilege('reader', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, TRIGGER')
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND a.attnum > 0 AND NOT a.attisdropped`)
	if err != nil {
		t.Fatal(err)
	}
	secret := regexp.MustCompile(`password_hash|token_hash|key_hash|secret|state_hash|browser_hash|email_key|request_hash|\.plain_|^observations\.(device|measured)$|^keyring_mark`)
	var column string
	var reads, writes bool
	seen := 0
	_, err = pgx.ForEachRow(rows, []any{&column, &reads, &writes}, func() error {
		if reads {
			seen++
		}
		if writes || reads && secret.MatchString(column) {
			t.Errorf("%s: reads %t, writes %t", column, reads, writes)
		}
		return nil
	})
	if err != nil || seen < 60 {
		t.Errorf("%d columns are read, %v", seen, err)
	}
}

// TestRolesThatOwnTheTablesAreRefused: their rights would be taken from the owner, and mean nothing.
func TestRolesThatOwnTheTablesAreRefused(t *testing.T) {
	t.Parallel()
	in := install(t)
	// A role of this test's own would be left out, so its database gets the runtime account as its owner.
	in.do(in.super, "REASSIGN OWNED BY "+in.ownerName()+" TO vantrexia_runtime")
	_, err := storeOf(t, in.runtime).Migrate(t.Context())
	if err == nil || !strings.Contains(err.Error(), "vantrexia_runtime owns the tables") {
		t.Errorf("migrated with %v", err)
	}
}

func (in *installation) ownerName() string {
	u, err := url.Parse(in.owner)
	if err != nil {
		in.t.Fatal(err)
	}
	return u.User.Username()
}
