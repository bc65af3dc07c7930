package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/vantrexia/vantrexia/account"
	"github.com/vantrexia/vantrexia/db"
	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// announce prints the welcome when the API is ready, so that the URLs in it work.
func announce(ctx context.Context, cfg config, out io.Writer, welcome string) {
	client := cfg.localClient()
	for !ready(ctx, client, cfg.apiURL()+"/readyz") {
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
	fmt.Fprint(out, welcome)
}

func ready(ctx context.Context, client *http.Client, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	return res.Body.Close() == nil && res.StatusCode == http.StatusOK
}

// newWelcome returns the text that is printed after the start: every URL, and a first reading to send.
func newWelcome(ctx context.Context, d dependencies, withSandbox bool) (string, error) {
	var b strings.Builder
	apiURL := d.cfg.apiURL()
	fmt.Fprintf(&b, "\nVantrexia is running; Ctrl-C stops it.\n\n  API               %s\n", apiURL)
	if d.cfg.TemporalUIURL != "" {
		fmt.Fprintf(&b, "  Temporal Web UI   %s\n", d.cfg.TemporalUIURL)
	} else {
		fmt.Fprintf(&b, "  Temporal          %s\n", d.cfg.TemporalAddress)
	}
	if !withSandbox {
		fmt.Fprintf(&b, "  EHR               %s\n\n", strings.ReplaceAll(d.cfg.ECW.FHIRBaseURL, "{practice_code}", d.cfg.ECW.PracticeCode))
		err := d.welcomeElsewhere(&b, apiURL)
		return b.String(), err
	}

	patient, err := demoPatient(ctx, d)
	if err != nil {
		return "", err
	}

	token, err := d.cfg.signToken("demo", account.Provider, account.MaxTokenLife)
	if err != nil {
		return "", err
	}

	password, err := makeDemoAccounts(ctx, d)
	if err != nil {
		return "", err
	}

	fmt.Fprintf(&b, "  Sandbox EHR       %s\n\n", localURL(d.cfg.SandboxAddress))
	fmt.Fprintf(&b, `Send a blood pressure, from another terminal:

%s -i %s/api/v1/observations/ -H 'Content-Type: application/json' \
  -H 'Authorization: Bearer %s' \
  -d '{"patient_id": "%s", "observation_type": "blood_pressure", "effective_at": "%s", "device": "BP-OMRON-7250", "values": {"systolic": 142, "diastolic": 92, "heart_rate": 78}}'

Sign in as a nurse (or as %s@demo.example):

%s %s/api/v1/auth/login/ -H 'Content-Type: application/json' \
  -d '{"email": "%s", "password": "%s"}'

Or 602 real visits:  bin/vantrexia simulate --url %s

`, d.cfg.curl(), apiURL, token, patient.ID, time.Now().UTC().Format(time.RFC3339),
		otherDemoRoles(), d.cfg.curl(), apiURL, demoEmail(account.Nurse), password, apiURL)
	return b.String(), nil
}

// otherDemoRoles lists the roles of the demo accounts that the example does not sign in as.
func otherDemoRoles() string {
	var others []string
	for _, role := range account.RolesWith(account.OwnAccount) {
		if role != account.Nurse {
			others = append(others, string(role))
		}
	}
	return strings.Join(others, ", ")
}

// curl is the command that asks the API on this machine.
func (c config) curl() string {
	if c.Door.TLSCert == "" {
		return "curl"
	}
	return "curl --cacert " + c.Door.TLSCert
}

// welcomeElsewhere writes the commands that test and use an EHR that is not our sandbox.
func (d dependencies) welcomeElsewhere(out io.Writer, apiURL string) error {
	token, err := d.cfg.signToken("demo", account.Admin, account.MaxTokenLife)
	if err != nil {
		return err
	}

	fmt.Fprintf(out, `The EHR must know our public keys, %[1]s/.well-known/jwks.json; README.md, "Against another EHR", says how.
Then, in another terminal, see whether it takes us, and list its patients:

token='%[2]s'
%[3]s -X POST %[1]s/api/v1/ecw/test/jwt/ -H "Authorization: Bearer $token"
%[3]s -X POST %[1]s/api/v1/ecw/test/connection/ -H "Authorization: Bearer $token"
%[3]s %[1]s/api/v1/ecw/patients/ -H "Authorization: Bearer $token"

Import a patient, then post readings to /api/v1/observations/ as README.md shows:

%[3]s -X POST %[1]s/api/v1/patients/import_selected_from_ecw/ -H "Authorization: Bearer $token" \
  -H 'Content-Type: application/json' -d '{"ecw_patient_ids": ["an ecw_fhir_id of the list"]}'

`, apiURL, token, d.cfg.curl())
	return nil
}

// demoPatient returns a patient who is linked to one of the sandbox's.
func demoPatient(ctx context.Context, d dependencies) (db.Patient, error) {
	person := sandbox.People()[0]
	known, err := d.store.FindLinkedPatient(ctx, db.FindLinkedPatientParams{
		PracticeCode: d.cfg.ECW.PracticeCode,
		ExternalID:   &person.FHIRID,
	})
	if err == nil {
		return known, nil
	}
	if !db.IsNotFound(err) {
		return db.Patient{}, fmt.Errorf("look for the demo patient: %w", err)
	}

	dateOfBirth, err := time.Parse(time.DateOnly, person.BirthDate)
	if err != nil {
		return db.Patient{}, fmt.Errorf("demo patient: %w", err)
	}

	patient, err := d.store.CreatePatient(ctx, db.CreatePatientParams{
		PracticeCode: d.cfg.ECW.PracticeCode,
		Demographics: db.Demographics{
			FirstName:   person.FirstName,
			LastName:    person.LastName,
			DateOfBirth: dateOfBirth,
			MRN:         person.MRN,
			ExternalID:  &person.FHIRID,
		},
		Active: true,
	})
	if err != nil {
		return patient, fmt.Errorf("create the demo patient: %w", err)
	}
	return patient, nil
}
