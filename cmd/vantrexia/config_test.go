package main

import (
	"os"
	"reflect"
	"regexp"
	"testing"
)

// TestEnvExampleListsEverySetting keeps .env.example true: all settings, no others, each with its real
// default.
func TestEnvExampleListsEverySetting(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../.env.example")
	if err != nil {
		t.Fatal(err)
	}

	documented := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^#([A-Z_]+)=(.*)$`).FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = m[2]
	}

	known := settings(reflect.TypeFor[config](), "")
	for name, def := range known {
		shown, ok := documented[name]
		if !ok {
			t.Errorf("%s is not in .env.example", name)
		}
		if def != "" && shown != def {
			t.Errorf("%s=%s in .env.example, the default is %s", name, shown, def)
		}
		delete(documented, name)
	}

	for name := range documented {
		t.Errorf("%s is in .env.example, but no setting", name)
	}
}

// settings maps the environment variables of a struct to their defaults.
func settings(t reflect.Type, prefix string) map[string]string {
	all := map[string]string{}
	for field := range t.Fields() {
		if nested, ok := field.Tag.Lookup("envPrefix"); ok {
			for name, def := range settings(field.Type, prefix+nested) {
				all[name] = def
			}
			continue
		}
		all[prefix+field.Tag.Get("env")] = field.Tag.Get("envDefault")
	}
	return all
}

func TestTutorialSettingsAreKnown(t *testing.T) {
	t.Parallel()
	known := settings(reflect.TypeFor[config](), "")
	for _, name := range []string{"ECW_CLIENT_ID", "ECW_CLIENT_SECRET", "ECW_ENVIRONMENT", "ECW_PRACTICE_CODE", "ECW_APP_TYPE"} {
		if _, ok := known[name]; !ok {
			t.Errorf("the tutorial's %s is no setting", name)
		}
	}
}
