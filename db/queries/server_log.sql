-- name: RevealingLogSettings :many
-- Lists the settings that let the server write rows or parameters into its log, each with the value that it
-- should have.
WITH wanted (name, private) AS (
    SELECT 'log_error_verbosity'::text, 'terse'::text
    UNION ALL
    SELECT 'log_parameter_max_length', '0'
    UNION ALL
    SELECT 'log_parameter_max_length_on_error', '0'
    UNION ALL
    SELECT 'log_destination', 'stderr'
)
SELECT (name || '=' || private)::text AS setting
FROM wanted
WHERE current_setting(name, true) <> private
  -- Other destinations are as terse as stderr. csvlog and jsonlog have a column for DETAIL, and always fill
  -- it.
  AND (name <> 'log_destination' OR current_setting(name) ~ 'csvlog|jsonlog')
  -- The length of parameters matters only when statements are logged.
  AND (
      name <> 'log_parameter_max_length'
      OR current_setting('log_statement') <> 'none'
      OR current_setting('log_min_duration_statement') <> '-1'
  )
ORDER BY name;
