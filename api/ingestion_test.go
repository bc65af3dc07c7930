package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vantrexia/vantrexia/account"
)

// ingested is a body of an ingestion endpoint, with members that a test has changed. An empty value removes
// the member.
func ingested(patientID, fields string, change ...string) string {
	var body map[string]json.RawMessage
	text := `{"patient_id":"` + patientID + `","measured_at":"2026-02-06T10:30:00Z",` + fields + `}`
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		panic(fmt.Sprintf("%v: %s", err, text))
	}
	for i := 0; i+1 < len(change); i += 2 {
		body[change[i]] = json.RawMessage(change[i+1])
		if change[i+1] == "" {
			delete(body, change[i])
		}
	}
	changed, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	return string(changed)
}

const cuff = `"systolic":142,"diastolic":92,"pulse":78,"device_id":"BP-OMRON-7250"`

func (c caller) ingest(path, body string, header ...string) answer {
	c.tb.Helper()
	return c.do("POST", "/api/v1/ingestion/"+path+"/", body, header...)
}

// The documented request has the documented answer, member by member.
func TestIngestionOfTheDocumentation(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	patient := s.patient(kevin)
	got := s.ingest("blood-pressure", ingested(patient, cuff)).want(t, http.StatusCreated, "")
	id := got.text("id")
	want := map[string]any{
		"id":               id,
		"patient_id":       patient,
		"observation_type": "blood_pressure",
		"systolic":         number("142"),
		"diastolic":        number("92"),
		"pulse":            number("78"),
		"device_id":        "BP-OMRON-7250",
		"measured_at":      "2026-02-06T10:30:00Z",
		"fhir_status":      "pending",
		"alert_triggered":  false,
		"alert_details":    nil,
		"created_at":       got.get("created_at"),
	}
	if !maps.Equal(got.get().(map[string]any), want) || got.header.Get("Location") != "/api/v1/observations/"+id+"/" {
		t.Errorf("got %s at %s, want %v", got.body, got.header.Get("Location"), want)
	}

	s.await(id, "transmitted")
	if again := s.ingest("blood-pressure", ingested(patient, cuff)).want(t, http.StatusOK, ""); again.text("fhir_status") != "transmitted" {
		t.Errorf("afterwards: %s", again.body)
	}
	if stored, received := s.inChart(id); stored != 1 || received != 1 {
		t.Errorf("the EHR holds it %d times, after %d creates", stored, received)
	}
}

// doors are a reading of each ingestion endpoint, and the same reading for POST /api/v1/observations/.
func doors() map[string][3]string {
	return map[string][3]string{
		"blood-pressure":    {"blood_pressure", cuff, `{"heart_rate":78,"systolic":142,"diastolic":92.0,"unit":"mmHg"}`},
		"weight":            {"weight", `"value":81.60,"unit":"lbs"`, `{"value":81.6,"unit":"[lb_av]"}`},
		"oxygen-saturation": {"oxygen_saturation", `"value":97,"device_id":null,"unit":null`, `{"value":97,"unit":"%"}`},
		"glucose":           {"blood_glucose", `"value":105,"unit":"mg/dL","meal":"pre"`, `{"value":1.05e2,"unit":"mg/dl","meal":"pre","method":"finger_stick"}`},
		"heart-rate":        {"heart_rate", `"value":72,"device_id":"Ω‑meter 🩺"`, `{"value":72,"unit":"bpm"}`},
		"temperature":       {"temperature", `"value":98.60,"unit":"°F"`, `{"value":98.6,"unit":"[degF]"}`},
		"respiratory-rate":  {"respiratory_rate", `"value":16`, `{"value":16,"unit":null}`},
	}
}

// The same reading is one reading, whichever door it takes first, alone or in a batch, and whatever zone its
// time is in. Other values under its name are refused at each.
func TestTheSameReadingAtBothDoors(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	for path, door := range doors() {
		t.Run(path, func(t *testing.T) {
			s := *s
			s.tb = t
			for _, first := range []string{"ingestion", "observations", "batch"} {
				patient := s.patient("")
				body := ingested(patient, door[1])
				device := answer{body: []byte(body)}.part("device_id").body
				reading := fmt.Sprintf(`{"patient_id":%q,"observation_type":%q,"effective_at":"2026-02-06T05:30:00.0000004-05:00","device":%s,"values":%s}`,
					patient, door[0], device, door[2])
				if string(device) == "null" && first == "observations" { // left out is the same
					reading = strings.Replace(reading, `"device":null,`, "", 1)
				}

				send := map[string]func() (status int, id string){
					"ingestion": func() (int, string) { got := s.ingest(path, body); return got.status, got.text("id") },
					"observations": func() (int, string) {
						got := s.do("POST", "/api/v1/observations/", reading)
						return got.status, got.text("id")
					},
					"batch": func() (int, string) {
						got := s.do("POST", "/api/v1/observations/batch/", `{"observations":[`+reading+`]}`)
						var status int
						_, _ = fmt.Sscan(got.statuses()[0], &status)
						return status, got.text("results", 0, "id")
					},
				}

				status, id := send[first]()
				if status != http.StatusCreated {
					t.Fatalf("first at %s: %d", first, status)
				}
				for _, then := range slices.Sorted(maps.Keys(send)) {
					if status, same := send[then](); status != http.StatusOK || same != id {
						t.Errorf("first at %s, then at %s: %d %s, want 200 %s", first, then, status, same, id)
					}
				}

				s.ingest(path, otherValue(body)).want(t, http.StatusConflict, "conflicting_reading")
				s.do("POST", "/api/v1/observations/", otherValue(reading)).want(t, http.StatusConflict, "conflicting_reading")
			}
		})
	}
	if got, want := s.rows("observations"), 3*len(doors()); got != want {
		t.Errorf("%d readings are stored, want %d", got, want)
	}
}

// otherValue changes what was measured, and keeps it possible.
func otherValue(body string) string {
	return strings.NewReplacer(`"systolic":142`, `"systolic":143`, `"value":81.6`, `"value":82.6`, `"value":97`, `"value":96`, `"value":105`, `"value":106`,
		`"value":1.05e2`, `"value":106`, `"value":72`, `"value":73`, `"value":98.6`, `"value":98.7`, `"value":16`, `"value":17`).Replace(body)
}

// Every number keeps its digits, and what was left out is null.
func TestIngestionAnswers(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	for _, test := range []struct {
		path, fields string
		want         map[string]any
	}{
		{"blood-pressure", `"systolic":120.50,"diastolic":80`, map[string]any{"systolic": number("120.50"), "pulse": nil, "device_id": nil}},
		{"weight", `"value":81.60,"unit":" KG "`, map[string]any{"value": number("81.60"), "unit": " KG ", "observation_type": "weight"}},
		{"oxygen-saturation", `"value":97`, map[string]any{"value": number("97"), "unit": nil, "observation_type": "oxygen_saturation"}},
		{"glucose", `"value":5.8,"unit":"mmol/L"`, map[string]any{"method": nil, "meal": nil, "observation_type": "blood_glucose"}},
		{"glucose", `"value":5.8,"unit":"mmol/L","meal":"post","method":"cgm"`, map[string]any{"method": "cgm", "meal": "post"}},
		{"heart-rate", `"value":72,"unit":"bpm"`, map[string]any{"unit": "bpm", "observation_type": "heart_rate"}},
		{"temperature", `"value":37.0,"unit":"℃"`, map[string]any{"value": number("37.0"), "unit": "℃", "observation_type": "temperature"}},
		{"respiratory-rate", `"value":16,"device_id":"A&D <\"Ä\">"`, map[string]any{"device_id": `A&D <"Ä">`, "observation_type": "respiratory_rate"}},
	} {
		t.Run(test.path, func(t *testing.T) {
			s := *s
			s.tb = t
			for _, when := range []string{"2026-02-06T10:30:00Z", "2026-02-06T16:15:00+05:45", "2026-02-05T20:30:00-14:00", "2026-02-06t10:30:00.000000Z"} {
				got := s.ingest(test.path, ingested(s.patient(""), test.fields, "measured_at", `"`+strings.ToUpper(when)+`"`)).want(t, http.StatusCreated, "")
				for name, want := range test.want {
					if got.get(name) != want {
						t.Errorf("%s is %v, want %v: %s", name, got.get(name), want, got.body)
					}
				}
				if got.text("measured_at") != "2026-02-06T10:30:00Z" {
					t.Errorf("%s became %s", when, got.text("measured_at"))
				}
			}
		})
	}
}

// The platform's bounds of a blood pressure hold at its endpoint only; those of the other types are ours.
func TestIngestionBounds(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	for _, test := range []struct{ path, fields, field, below, least, most, above string }{
		{"blood-pressure", `"diastolic":59`, "systolic", "59.9", "60", "300", "300.1"},
		{"blood-pressure", `"systolic":299`, "diastolic", "29.9", "30", "200", "200.1"},
		{"blood-pressure", `"systolic":142,"diastolic":92`, "pulse", "29.9", "30", "250", "250.1"},
		{"weight", `"unit":"kg"`, "value", "0.19", "0.2", "650", "650.1"},
		{"oxygen-saturation", `"unit":"%"`, "value", "19.9", "20", "100", "100.1"},
		{"glucose", `"unit":"mg/dL"`, "value", "4.9", "5", "2000", "2000.1"},
		{"heart-rate", `"unit":"/min"`, "value", "19.9", "20", "300", "300.1"},
		{"temperature", `"unit":"Cel"`, "value", "19.9", "20", "45", "45.1"},
		{"respiratory-rate", `"unit":"/min"`, "value", "2.9", "3", "150", "150.1"},
	} {
		t.Run(test.path+" "+test.field, func(t *testing.T) {
			s := *s
			s.tb = t
			for _, value := range []string{test.least, test.most} {
				s.ingest(test.path, ingested(s.patient(""), test.fields, test.field, value)).want(t, http.StatusCreated, "")
			}

			patient := s.patient("")
			for _, value := range []string{
				test.below, test.above, "0", "-0", "-0.0e0", "-" + test.least, "1e400", "-1e400", "1e99999999999999999999", "9007199254740993",
				"60." + strings.Repeat("0", 30) + "1", strings.Repeat("9", 5000),
			} {
				got := s.ingest(test.path, ingested(patient, test.fields, test.field, value)).want(t, http.StatusBadRequest, "invalid")
				if !slices.Equal(got.fields(), []string{test.field}) || !strings.HasPrefix(got.text("detail"), test.field+": ") {
					t.Errorf("%.40s: the fields named are %q: %s", value, got.fields(), clip(string(got.body)))
				}
			}
		})
	}
	// What the platform does not take comes in through our own endpoint.
	s.post(values(bloodPressure(s.patient("")), `{"systolic":50,"diastolic":25,"heart_rate":28}`))
}

// Bad input names the door's own fields, and stores nothing.
func TestBadIngestion(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	s.post(weight(patient))
	good := func(change ...string) string { return ingested(patient, cuff, change...) }
	const empty, unknown = "", `"d290f1ee-6c54-4b01-90e6-d701748f0851"`

	s.refuse(t, "POST", "/api/v1/ingestion/blood-pressure/", slices.Concat(everyBody(good()), []bad{
		invalid("nothing", `{}`, "patient_id", "systolic", "diastolic", "measured_at"),
		invalid("no systolic", good("systolic", empty), "systolic"),
		invalid("no diastolic", good("diastolic", empty), "diastolic"),
		invalid("the systolic is null", good("systolic", "null"), "systolic"),
		invalid("the systolic is a text", good("systolic", `"142"`), "systolic"),
		invalid("the pulse is a text", good("pulse", `"78"`), "pulse"),
		invalid("the pulse is true", good("pulse", "true"), "pulse"),
		invalid("all are out of bounds", good("systolic", "301", "diastolic", "29", "pulse", "251"), "diastolic", "pulse", "systolic"),
		invalid("swapped", good("systolic", "92", "diastolic", "142"), "systolic"),
		invalid("equal", good("systolic", "92.0"), "systolic"),
		invalid("too many digits", good("systolic", "142.0000000000000000001"), "systolic"),
		invalid("our own names", good("heart_rate", "78"), "heart_rate"),
		invalid("our own form", bloodPressure(patient), "device", "effective_at", "observation_type", "values", "systolic", "diastolic", "measured_at"),
		invalid("a unit", good("unit", `"mmHg"`), "unit"),
		invalid("a meal", good("meal", `"pre"`), "meal"),
		invalid("the pulse twice", good()[:len(good())-1]+`,"Pulse":79}`, "pulse"),

		invalid("an unknown patient", good("patient_id", unknown), "patient_id"),
		invalid("no UUID", good("patient_id", `"7"`), "patient_id"),
		invalid("an empty device", good("device_id", `""`), "device_id"),
		invalid("a blank device", good("device_id", `" "`), "device_id"),
		invalid("a device that cannot be seen", good("device_id", `"\u200b"`), "device_id"),
		invalid("a device that turns the text", good("device_id", `"BP\u202e1"`), "device_id"),
		invalid("a device with a NUL", good("device_id", `"BP\u0000"`), "device_id"),
		invalid("a long device", good("device_id", `"`+strings.Repeat("Ä", 129)+`"`), "device_id"),
		invalid("a number for a device", good("device_id", "7250"), "device_id"),
		invalid("no time", good("measured_at", empty), "measured_at"),
		invalid("a time without a zone", good("measured_at", `"2026-02-06T10:30:00"`), "measured_at"),
		invalid("a time in words", good("measured_at", `"yesterday"`), "measured_at"),
		invalid("a number for a time", good("measured_at", "1770373800"), "measured_at"),
		invalid("an old time", good("measured_at", `"1899-12-31T23:59:59Z"`), "measured_at"),
		invalid("a time to come", good("measured_at", `"2999-01-01T00:00:00Z"`), "measured_at"),
	}))

	s.refuse(t, "POST", "/api/v1/ingestion/glucose/", []bad{
		invalid("no unit", ingested(patient, `"value":105`), "unit"),
		invalid("another unit", ingested(patient, `"value":105,"unit":"kg"`), "unit"),
		invalid("a unit with a NUL", ingested(patient, `"value":105,"unit":"mg\u0000"`), "unit"),
		invalid("a number for a unit", ingested(patient, `"value":105,"unit":7`), "unit"),
		invalid("no value", ingested(patient, `"unit":"mg/dL"`), "value"),
		invalid("a null value", ingested(patient, `"unit":"mg/dL","value":null`), "value"),
		invalid("another meal", ingested(patient, `"value":105,"unit":"mg/dL","meal":"lunch"`), "meal"),
		invalid("a meal in capitals", ingested(patient, `"value":105,"unit":"mg/dL","meal":"PRE"`), "meal"),
		invalid("an empty meal", ingested(patient, `"value":105,"unit":"mg/dL","meal":""`), "meal"),
		invalid("another method", ingested(patient, `"value":105,"unit":"mg/dL","method":"guess"`), "method"),
		invalid("a pressure", ingested(patient, cuff), "diastolic", "pulse", "systolic", "value"),
	})
	s.refuse(t, "POST", "/api/v1/ingestion/weight/", []bad{
		invalid("a meal", ingested(patient, `"value":81.6,"unit":"kg","meal":"pre"`), "meal"),
		invalid("a method", ingested(patient, `"value":81.6,"unit":"kg","method":"cgm"`), "method"),
		invalid("the unit of another type", ingested(patient, `"value":81.6,"unit":"mg/dL"`), "unit"),
	})
	s.refuse(t, "POST", "/api/v1/observations/", []bad{
		invalid("the meal of a weight", replaced(weight(patient), `"unit":"kg"`, `"unit":"kg","meal":"pre"`), "values.meal"),
	})
}

// An Idempotency-Key stands for one body at one door: with the same number at another it is not the same
// reading.
func TestIngestionWithAKey(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	patient := s.patient(kevin)
	body := ingested(patient, `"value":97`)
	key := []string{"Idempotency-Key", "gateway-7/1"}
	id := s.ingest("oxygen-saturation", body, key...).want(t, http.StatusCreated, "").text("id")
	if again := s.ingest("oxygen-saturation", body, key...).want(t, http.StatusOK, ""); again.text("id") != id {
		t.Errorf("the same request has another id: %s", again.body)
	}

	s.ingest("oxygen-saturation", ingested(patient, `"value":96`), key...).want(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	s.ingest("heart-rate", body, key...).want(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	s.post(weight(patient))
	s.do("POST", "/api/v1/observations/", weight(patient), key...).want(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	if n := s.rows("observations"); n != 2 {
		t.Errorf("%d readings are stored, want 2", n)
	}
}

// What a meter says of the meal arrives in the chart, and a reading of an unknown device has none there.
func TestMealArrivesInTheChart(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	id := s.ingest("glucose", ingested(s.patient(kevin), `"value":105,"unit":"mg/dL","meal":"post"`)).want(t, http.StatusCreated, "").text("id")
	if got := s.await(id, "transmitted"); got.get("values", "meal") != "post" || got.get("device") != nil {
		t.Errorf("the reading is %s", got.body)
	}

	view := s.do("GET", "/api/v1/fhir/observations/"+id+"/", "").want(t, http.StatusOK, "")
	if note := view.text("note", 0, "text"); note != "Measured after a meal." || view.get("device") != nil {
		t.Errorf("the resource is %s", view.body)
	}

	page, err := s.client.Get(s.ehr + "/?patient=" + url.QueryEscape(kevin))
	if err != nil {
		t.Fatal(err)
	}
	defer page.Body.Close()
	var chart strings.Builder
	if err := page.Write(&chart); err != nil || !strings.Contains(chart.String(), "105 mg/dL (Measured after a meal.)") {
		t.Errorf("the chart does not show the meal (%v)", err)
	}
}

// A machine reads what it posted, through whichever door, and nothing else.
func TestServiceReadsOnlyWhatItPosted(t *testing.T) {
	t.Parallel()
	s := start(t, nothing)
	gateway := func(name string) caller {
		token, err := testSigner(t).Sign(name, account.Service, "", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return s.with(token)
	}
	one, other := gateway("gateway-1"), gateway("gateway-2")
	patient := s.patient(kevin)

	readings := map[string]string{
		"alone":     one.post(weight(patient)),
		"ingestion": one.ingest("blood-pressure", ingested(patient, cuff)).want(t, http.StatusCreated, "").text("id"),
		"batch":     one.do("POST", "/api/v1/observations/batch/", `{"observations":[`+weight(patient)+`]}`).text("results", 0, "id"),
	}
	for name, id := range readings {
		path := "/api/v1/observations/" + id + "/"
		s.await(id, "transmitted") // a person sees all
		if got := one.do("GET", path, "").want(t, http.StatusOK, ""); got.text("fhir_status") != "transmitted" {
			t.Errorf("%s: its sender sees %s", name, got.body)
		}
		none := s.do("GET", "/api/v1/observations/"+strings.Replace(id, id[:8], "00000000", 1)+"/", "").want(t, http.StatusNotFound, "not_found")
		got := other.do("GET", path, "").want(t, http.StatusNotFound, "not_found")
		if want := strings.Replace(string(none.body), "00000000", id[:8], 1); string(got.body) != want {
			t.Errorf("%s: %s differs from %s", name, got.body, want)
		}
	}

	// Of two senders the first owns the reading. The second gets its id, and no more.
	id := readings["ingestion"]
	got := other.do("POST", "/api/v1/observations/", bloodPressure(patient)).want(t, http.StatusOK, "")
	if got.text("id") != id || got.get("transmission") != nil || got.get("fhir_status") != nil || got.get("transformed_at") != nil {
		t.Errorf("the second sender sees %s", got.body)
	}
	got = other.ingest("blood-pressure", ingested(patient, cuff)).want(t, http.StatusOK, "")
	if got.text("id") != id || got.text("fhir_status") != "pending" {
		t.Errorf("the second sender sees %s", got.body)
	}
	other.do("GET", "/api/v1/observations/"+id+"/", "").want(t, http.StatusNotFound, "not_found")
	if got := one.ingest("blood-pressure", ingested(patient, cuff)).want(t, http.StatusOK, ""); got.text("fhir_status") != "transmitted" {
		t.Errorf("the first sender sees %s", got.body)
	}
}

// An API key that is for some devices posts readings of these only, through whichever door, and none of an
// unknown device. It reads what it posted, by the key and not by its name.
func TestAKeyPostsForItsDevicesOnly(t *testing.T) {
	t.Parallel()
	s := start(t, temporal)
	key := func() caller {
		made := s.do("POST", "/api/v1/api-keys/", `{"name":"gateway","role":"service","devices":["BP-*"]}`).want(t, http.StatusCreated, "")
		return s.with(made.text("key"))
	}
	cuffs, twin := key(), key()
	patient := s.patient(kevin)

	id := cuffs.post(bloodPressure(patient))
	cuffs.observation(id)
	twin.do("GET", "/api/v1/observations/"+id+"/", "").want(t, http.StatusNotFound, "not_found")
	cuffs.ingest("blood-pressure", ingested(patient, cuff)).want(t, http.StatusOK, "")

	scale := weight(patient)
	nameless := strings.Replace(scale, `"device":"SCALE-7",`, "", 1)
	for _, reading := range []string{scale, nameless} {
		if got := cuffs.do("POST", "/api/v1/observations/", reading).want(t, http.StatusBadRequest, "invalid"); !slices.Equal(got.fields(), []string{"device"}) {
			t.Errorf("%s", got.body)
		}
	}
	got := cuffs.ingest("weight", ingested(patient, `"value":81.6,"unit":"kg","device_id":"SCALE-7"`)).want(t, http.StatusBadRequest, "invalid")
	if !slices.Equal(got.fields(), []string{"device_id"}) {
		t.Errorf("%s", got.body)
	}
	batch := cuffs.do("POST", "/api/v1/observations/batch/", `{"observations":[`+scale+`,`+bloodPressure(patient)+`]}`).want(t, http.StatusOK, "")
	if statuses := batch.statuses(); !slices.Equal(statuses, []string{"400", "200"}) {
		t.Errorf("the batch: %s", batch.body)
	}
	if n := s.rows("observations"); n != 1 {
		t.Errorf("%d readings are stored, want 1", n)
	}
}
