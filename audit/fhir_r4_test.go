package audit_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
)

// element is an element of FHIR R4: https://hl7.org/fhir/R4/auditevent.html. It has members, or a form.
type element struct {
	min     int
	many    bool
	form    string   // a regular expression of R4's data types; empty for a boolean or an object
	choice  []string // of a required binding
	members map[string]element
}

const (
	r4ID      = `^[A-Za-z0-9\-.]{1,64}$`
	r4Code    = `^[^\s]+(\s[^\s]+)*$`
	r4URI     = `^\S+$`
	r4String  = `^[ \r\n\t\S]+$`
	r4Instant = `^([0-9]{4})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]+)?(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])$`
)

func coding(min int, many bool) element {
	return element{min: min, many: many, members: map[string]element{
		"system": {form: r4URI}, "version": {form: r4String}, "code": {form: r4Code}, "display": {form: r4String},
	}}
}

func codeable(many bool) element {
	return element{many: many, members: map[string]element{"coding": coding(0, true), "text": {form: r4String}}}
}

func reference(min int) element {
	return element{min: min, members: map[string]element{
		"reference": {form: r4String}, "type": {form: r4URI}, "display": {form: r4String},
		"identifier": {members: map[string]element{"system": {form: r4URI}, "value": {form: r4String}}},
	}}
}

// auditEventOfR4 are the elements of the resource, as far as no extension of it is used.
func auditEventOfR4() element {
	return element{min: 1, members: map[string]element{
		"resourceType":   {min: 1, choice: []string{"AuditEvent"}},
		"id":             {form: r4ID},
		"type":           coding(1, false),
		"subtype":        coding(0, true),
		"action":         {choice: []string{"C", "R", "U", "D", "E"}},
		"recorded":       {min: 1, form: r4Instant},
		"outcome":        {choice: []string{"0", "4", "8", "12"}},
		"outcomeDesc":    {form: r4String},
		"purposeOfEvent": codeable(true),
		"agent": {min: 1, many: true, members: map[string]element{
			"type":      codeable(false),
			"role":      codeable(true),
			"who":       reference(0),
			"altId":     {form: r4String},
			"name":      {form: r4String},
			"requestor": {min: 1},
			"policy":    {many: true, form: r4URI},
			"network": {members: map[string]element{
				"address": {form: r4String},
				"type":    {choice: []string{"1", "2", "3", "4", "5"}},
			}},
			"purposeOfUse": codeable(true),
		}},
		"source": {min: 1, members: map[string]element{
			"site":     {form: r4String},
			"observer": reference(1),
			"type":     coding(0, true),
		}},
		"entity": {many: true, members: map[string]element{
			"what":        reference(0),
			"type":        coding(0, false),
			"role":        coding(0, false),
			"name":        {form: r4String},
			"description": {form: r4String},
			"query":       {form: `^[A-Za-z0-9+/]+=*$`},
		}},
	}}
}

// r4Faults returns where a text is not an AuditEvent of R4, and where it does not name exactly one requestor.
func r4Faults(text []byte) (faults []string) {
	var resource map[string]any
	if err := json.Unmarshal(text, &resource); err != nil {
		return []string{err.Error()}
	}
	faults = auditEventOfR4().check("AuditEvent", resource)

	requestors := 0
	agents, _ := resource["agent"].([]any)
	for _, agent := range agents {
		if a, _ := agent.(map[string]any); a["requestor"] == true {
			requestors++
		}
	}
	if requestors != 1 {
		faults = append(faults, fmt.Sprintf("%d agents are the requestor", requestors))
	}
	return faults
}

// check checks one value of the element.
func (e element) check(path string, value any) (faults []string) {
	object, isObject := value.(map[string]any)
	text, isText := value.(string)
	switch {
	case e.members != nil && (!isObject || len(object) == 0):
		return []string{path + " is no object with members"}
	case e.members == nil && e.form == "" && e.choice == nil:
		if _, ok := value.(bool); !ok {
			return []string{path + " is no boolean"}
		}
		return nil
	case e.members == nil && !isText:
		return []string{path + " is no text"}
	case e.choice != nil && !slices.Contains(e.choice, text):
		return []string{path + " may not be " + text}
	case e.form != "" && !regexp.MustCompile(e.form).MatchString(text):
		return []string{path + " has not its form: " + text}
	}

	for name := range object {
		if _, ok := e.members[name]; !ok {
			faults = append(faults, path+"."+name+" is no element of R4")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.members)) {
		faults = append(faults, e.members[name].count(path+"."+name, object[name])...)
	}
	return faults
}

// count checks how often the element is there, and each of its values.
func (e element) count(path string, value any) (faults []string) {
	list, isList := value.([]any)
	switch {
	case value == nil && e.min > 0, isList && len(list) == 0:
		return []string{path + " is missing"}
	case value == nil:
		return nil
	case isList != e.many:
		return []string{path + " is a list, or should be one"}
	case !isList:
		return e.check(path, value)
	}
	for i, one := range list {
		faults = append(faults, e.check(fmt.Sprintf("%s[%d]", path, i), one)...)
	}
	return faults
}
