-- name: RevealingLogSettings :many
-- The settings by which the server may write rows or parameters into its log, as they should be.
WITH wanted (name, private) AS (
    SELECT 'log_error_verbosity'::text, 'terse'::text
    UNION ALL SELECT 'log_parameter_max_length', '0'
    UNION ALL SELECT 'log_parameter_max_length_on_error', '0'
    UNION ALL SELECT 'log_destination', 'stderr'
)
SELECT (name || '=' || private)::text AS setting
FROM wanted
WHERE current_setting(name, true) <> private
  -- The others are as terse as stderr; csvlog and jsonlog have a column for DETAIL, and fill it always.
  AND (name <> 'log_destination' OR current_setting(name) ~ 'csvlog|jsonlog')
  -- It matters only to statements that are logged.
  AND (name <> 'log_parameter_max_length'
       OR current_setting('log_statement') <> 'none'
       OR current_setting('log_min_duration_statement') <> '-1')
ORDER BY name;
