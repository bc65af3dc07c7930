package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	persistencespb "go.temporal.io/server/api/persistence/v1"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/persistence/serialization"
	"go.temporal.io/server/common/persistence/sql"
	"go.temporal.io/server/common/persistence/sql/sqlplugin"
	sqliteplugin "go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/resolver"
	"go.temporal.io/server/common/searchattribute/sadefs"
	"go.temporal.io/server/schema/sqlite"
	"google.golang.org/protobuf/types/known/durationpb"
)

// lockTimeout is how long a start waits for an earlier server on the same file to end.
const lockTimeout = 10 * time.Second

// lockStore keeps a second server off the file, because two would take the history shard from each other. The
// kernel frees the lock however the process ends. The lock file stays: if it were removed, two processes
// could lock two files.
func lockStore(ctx context.Context, dbFile string) (unlock func(), err error) {
	if dbFile == "" {
		return func() {}, nil
	}

	if _, err := os.Stat(filepath.Dir(dbFile)); err != nil {
		return nil, fmt.Errorf("the directory of --db-filename: %w", err)
	}

	file, err := os.OpenFile(dbFile+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the database file: %w", err)
	}

	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()

	if err := poll(ctx, func() error { return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }); err != nil {
		_ = file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another temporaldev; stop it or choose another --db-filename", dbFile)
		}
		return nil, fmt.Errorf("lock the database file: %w", err)
	}
	return func() { _ = file.Close() }, nil
}

// openStore prepares the database: schema, namespaces, search attributes. Every step may be repeated, also
// after a kill in the middle, and leaves what is there as it is.
func openStore(ctx context.Context, opts options) (*config.SQL, error) {
	store := &config.SQL{PluginName: sqliteplugin.PluginName}
	if opts.dbFile == "" {
		store.DatabaseName = "temporaldev"
		store.ConnectAttributes = map[string]string{"mode": "memory", "cache": "shared"} // the plugin makes the schema
	} else {
		store.DatabaseName = opts.dbFile
		// With the write-ahead log a commit survives the death of the process; "normal" leaves out the flush
		// that it would take to survive a power cut, and is several times faster.
		store.ConnectAttributes = map[string]string{"mode": "rwc", "journal_mode": "wal", "synchronous": "normal", "busy_timeout": "10000"}
		if err := createSchema(store); err != nil {
			return nil, fmt.Errorf("create the schema in %s: %w", opts.dbFile, err)
		}
	}

	for _, name := range opts.namespaces {
		if err := createNamespace(ctx, store, name, opts); err != nil {
			return nil, fmt.Errorf("namespace %s: %w", name, err)
		}
	}

	return store, nil
}

// createSchema makes the tables of a new file in one transaction, because a part of a schema would never be
// completed.
func createSchema(store *config.SQL) (err error) {
	db, err := sql.NewSQLAdminDB(sqlplugin.DbKindUnknown, store, resolver.NewNoopResolver(), log.NewNoopLogger(),
		metrics.NoopMetricsHandler)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	tables, err := db.ListTables(store.DatabaseName)
	if err != nil || len(tables) > 0 {
		return err
	}

	// The plugin's pool holds a single connection, so these statements share the transaction.
	if err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}

	if err := sqlite.SetupSchemaOnDB(db); err != nil {
		return errors.Join(err, db.Exec("ROLLBACK"))
	}
	return db.Exec("COMMIT")
}

// createNamespace creates the namespace, or gives an existing one the search attributes that it lacks. It
// writes to the database because a running server takes seconds to notice a new attribute, and refuses
// workflows meanwhile.
func createNamespace(ctx context.Context, store *config.SQL, name string, opts options) (err error) {
	db, err := sql.NewSQLDB(sqlplugin.DbKindUnknown, store, resolver.NewNoopResolver(), log.NewNoopLogger(), metrics.NoopMetricsHandler)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()

	created, err := sqlite.NewNamespaceConfig(clusterName, name, false, nil)
	if err != nil {
		return err
	}

	created.Detail.Config.Retention = durationpb.New(opts.retention)
	if err := sqlite.CreateNamespaces(store, created); err != nil {
		return err
	}

	rows, err := db.SelectFromNamespace(ctx, sqlplugin.NamespaceFilter{Name: &name})
	if err != nil {
		return err
	}

	row, serializer := rows[0], serialization.NewSerializer()
	encoding, err := enumspb.EncodingTypeFromString(row.DataEncoding)
	if err != nil {
		return err
	}

	detail, err := serializer.NamespaceDetailFromBlob(&commonpb.DataBlob{Data: row.Data, EncodingType: encoding})
	if err != nil {
		return err
	}

	changed, err := addSearchAttributes(detail, opts.searchAttributes)
	if err != nil || !changed {
		return err
	}

	blob, err := serializer.NamespaceDetailToBlob(detail)
	if err != nil {
		return err
	}

	row.Data, row.DataEncoding = blob.GetData(), blob.GetEncodingType().String()
	_, err = db.UpdateNamespace(ctx, &row)
	return err
}

// addSearchAttributes gives each attribute the namespace lacks one of the store's preallocated columns of its
// type, and reports whether it gave any.
func addSearchAttributes(namespace *persistencespb.NamespaceDetail, wanted map[string]enumspb.IndexedValueType) (bool, error) {
	columns := sadefs.GetDBIndexSearchAttributes(nil).CustomSearchAttributes
	aliases := namespace.GetConfig().GetCustomSearchAttributeAliases() // column to attribute
	if aliases == nil {
		aliases = map[string]string{}
		namespace.Config.CustomSearchAttributeAliases = aliases
	}

	present := map[string]enumspb.IndexedValueType{}
	for column, attribute := range aliases {
		present[attribute] = columns[column]
	}

	changed := false
	for _, attribute := range slices.Sorted(maps.Keys(wanted)) {
		kind := wanted[attribute]
		if had, found := present[attribute]; found {
			if had != kind {
				return false, fmt.Errorf("search attribute %s is of type %s already and cannot become %s", attribute, had, kind)
			}
			continue
		}

		column, found := freeColumn(columns, aliases, kind)
		if !found {
			return false, fmt.Errorf("no room for search attribute %s: all columns of type %s are in use", attribute, kind)
		}

		aliases[column] = attribute
		changed = true
	}

	return changed, nil
}

func freeColumn(columns map[string]enumspb.IndexedValueType, aliases map[string]string, kind enumspb.IndexedValueType) (string, bool) {
	for _, column := range slices.Sorted(maps.Keys(columns)) {
		if _, used := aliases[column]; !used && columns[column] == kind {
			return column, true
		}
	}
	return "", false
}
