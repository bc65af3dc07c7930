package devstack

// PrivateLog returns the settings, as name=value, that keep rows and parameters out of PostgreSQL's log. An
// installation has the same ones, so that the tests run as production does.
//
// The log then has only the first line of an error, which names a constraint or a column. The client gets the
// rest.
func PrivateLog() []string {
	return []string{
		"log_error_verbosity=terse",     // no DETAIL with the row or the key, no CONTEXT with the parameters
		"log_min_error_statement=panic", // no STATEMENT: a person at psql writes values into it
		"log_statement=none",            // the same
		"log_min_duration_statement=-1", // the same, of slow ones
		"log_parameter_max_length=0",    // with one of those two switched on, the log has $1 and not the value
		"log_parameter_max_length_on_error=0",
	}
}
