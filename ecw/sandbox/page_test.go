package sandbox_test

import (
	"strings"
	"testing"
)

func TestPage(t *testing.T) {
	t.Parallel()
	r := start(t)
	if a := r.do("GET", "/", ""); a.status != 200 || !strings.Contains(a.text, "No Observation has arrived yet") ||
		!strings.Contains(a.text, "O&#39;Brien") {
		t.Errorf("empty: got %d %s", a.status, a.text)
	}

	token := r.token(allScopes)
	w := with(t, weight("w"), `"SCALE-<1>"`, `"<script>alert(1)</script>"`)
	r.create(token, w)
	r.create(token, pressure("p"))
	noted := with(t, glucose(t), `"valueQuantity"`, `"note":[{"text":"Measured before a meal."}],"valueQuantity"`)
	r.create(token, with(t, noted, "10:30:00Z", "11:55:00Z"))
	a := r.do("GET", "/", "")

	for _, shown := range []string{
		"Lee, Kevin", "ECW-10001", "81.60 kg", "142/92", ">78<", "2026-02-06 10:30:00", "Vantrexia RPM", "obs-fhir-10001",
		"&lt;script&gt;", "3 Observations", "81.60 mg/dL (Measured before a meal.)",
	} {
		if !strings.Contains(a.text, shown) {
			t.Errorf("the page does not show %s", shown)
		}
	}

	if strings.Contains(a.text, "<script") {
		t.Error("what a device sends is not escaped")
	}
	if !strings.HasPrefix(a.header.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Error("no content security policy")
	}
	if one := r.do("GET", "/?patient="+patientID, ""); one.status != 200 || !strings.Contains(one.text, "Flowsheet of Kevin Lee") {
		t.Errorf("one patient: got %d", one.status)
	}
	if none := r.do("GET", "/?patient=ecw-patient-1614502", ""); none.status != 200 || strings.Contains(none.text, "81.60") {
		t.Errorf("another patient: got %d", none.status)
	}

	for _, path := range []string{"/?patient=nobody", "/nowhere"} {
		if a := r.do("GET", path, ""); a.status != 404 {
			t.Errorf("%s: got %d", path, a.status)
		}
	}
}
