package db

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// PatientFilter says which patients are listed; nil lists all.
type PatientFilter struct {
	PracticeCode string
	// Search is what the first name, the last name or the MRN begins with, in upper or lower case.
	Search     *string
	MRN        *string
	ExternalID *string
	Mismatch   *bool
	Active     *bool
}

// PatientOrder is an order of the list of patients.
type PatientOrder string

// The orders of the list. Patients with the same last name are ordered by their first name, and letters, case and
// accents as the Unicode Collation Algorithm has them (UTS #10).
const (
	ByLastName        PatientOrder = "last_name"
	ByPatientCreation PatientOrder = "created_at"
)

// PatientKey is the place of a patient in the list. It holds no name: it becomes a part of URLs, which are
// logged everywhere. A patient whose name changes has another place at once.
type PatientKey struct {
	ID uuid.UUID `json:"id"`
}

// Key returns the place of a patient in the list.
func (p Patient) Key() PatientKey { return PatientKey{ID: p.ID} }

// ListPatients lists a page of patients, and counts the list up to one more than [CountedExactly]. After a patient
// whom the database does not know, no row comes.
func (s *Store) ListPatients(
	ctx context.Context, f PatientFilter, order PatientOrder, descending bool, p Page[PatientKey],
) ([]Patient, int64, error) {
	fits, err := s.fitting(ctx, f)
	if err != nil {
		return nil, 0, err
	}
	sorted, err := s.directories.of(f.PracticeCode).current(ctx, s.Queries)
	if err != nil {
		return nil, 0, err
	}

	var people []*person
	switch order {
	case ByLastName:
		people = sorted.byName
	case ByPatientCreation:
		people = sorted.byCreation
	default:
		return nil, 0, fmt.Errorf("patients have no order %q", order)
	}

	rows, err := s.patients(ctx, f.PracticeCode, pageOf(people, fits, descending != p.Back, p))
	return rows, counted(people, fits), err
}

// fitting returns what tells the patients who pass the filter. Who has an MRN or an eCW id is looked up now, and
// the directory afterwards, so it knows that patient.
func (s *Store) fitting(ctx context.Context, f PatientFilter) (func(*person) bool, error) {
	var only []uuid.UUID // each has to be the patient
	if f.MRN != nil {
		found, err := s.FindPatientByMRN(ctx, FindPatientByMRNParams{PracticeCode: f.PracticeCode, MRN: *f.MRN})
		if err != nil && !IsNotFound(err) {
			return nil, err
		}
		only = append(only, found.ID)
	}
	if f.ExternalID != nil {
		found, err := s.FindLinkedPatient(ctx, FindLinkedPatientParams{PracticeCode: f.PracticeCode, ExternalID: f.ExternalID})
		if err != nil && !IsNotFound(err) {
			return nil, err
		}
		only = append(only, found.ID)
	}

	begins := beginning("") // as every word does
	if f.Search != nil {
		begins = beginning(*f.Search)
	}
	return func(p *person) bool {
		return (f.Active == nil || *f.Active != p.archived) &&
			(f.Mismatch == nil || *f.Mismatch == p.mismatched) &&
			!slices.ContainsFunc(only, func(id uuid.UUID) bool { return id != p.id }) &&
			strings.Contains(p.words, begins)
	}, nil
}

// pageOf returns the ids of a page. backwards reads the people from their end.
func pageOf(people []*person, fits func(*person) bool, backwards bool, p Page[PatientKey]) (ids []uuid.UUID) {
	at, step := -1, 1
	if backwards {
		at, step = len(people), -1
	}
	if p.After != nil {
		at = slices.IndexFunc(people, func(known *person) bool { return known.id == p.After.ID })
		if at < 0 {
			return nil
		}
	}

	skip := p.Offset
	for at += step; at >= 0 && at < len(people) && len(ids) < p.Limit; at += step {
		switch {
		case !fits(people[at]):
		case skip > 0:
			skip--
		default:
			ids = append(ids, people[at].id)
		}
	}
	return ids
}

// counted counts the people who fit, up to one more than [CountedExactly].
func counted(people []*person, fits func(*person) bool) (n int64) {
	for _, p := range people {
		if n > CountedExactly {
			break
		}
		if fits(p) {
			n++
		}
	}
	return n
}

// patients returns the patients with these ids in the order of the ids.
func (s *Store) patients(ctx context.Context, practice string, ids []uuid.UUID) ([]Patient, error) {
	if len(ids) == 0 {
		return []Patient{}, nil
	}
	rows, err := s.listPatients(ctx, listPatientsParams{PracticeCode: practice, IDs: ids})
	if err != nil {
		return nil, err
	}

	place := make(map[uuid.UUID]int, len(ids))
	for i, id := range ids {
		place[id] = i
	}
	slices.SortFunc(rows, func(a, b sealedPatient) int { return place[a.ID] - place[b.ID] })

	patients := make([]Patient, len(rows))
	for i, row := range rows {
		if patients[i], err = s.openPatient(row, nil); err != nil {
			return nil, err
		}
	}
	return patients, nil
}
