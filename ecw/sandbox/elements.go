package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// element lists the names of a FHIR type's elements, and the types of the elements that are checked in turn.
type element struct {
	names string
	types map[string]string
}

// elementsOf is the part of FHIR R4 that an Observation of a vital sign may contain. The table is needed
// because Go's decoder accepts "effectivedatetime" for effectiveDateTime and skips unknown elements; a FHIR
// server does neither.
func elementsOf(fhirType string) (element, bool) {
	const (
		common = " id extension "
		values = " valueQuantity valueCodeableConcept valueString valueBoolean valueInteger valueRange valueRatio " +
			"valueSampledData valueTime valueDateTime valuePeriod dataAbsentReason interpretation referenceRange "
	)
	switch fhirType {
	case "Observation":
		return element{
			common + values + "resourceType meta implicitRules language text contained modifierExtension identifier basedOn " +
				"partOf status category code subject focus encounter effectiveDateTime effectivePeriod effectiveTiming " +
				"effectiveInstant issued performer note bodySite method specimen device hasMember derivedFrom component ",
			map[string]string{
				"meta":             "Meta",
				"identifier":       "Identifier",
				"category":         "CodeableConcept",
				"code":             "CodeableConcept",
				"subject":          "Reference",
				"performer":        "Reference",
				"note":             "Annotation",
				"device":           "Reference",
				"valueQuantity":    "Quantity",
				"dataAbsentReason": "CodeableConcept",
				"component":        "Component",
			},
		}, true
	case "Component":
		return element{
			common + values + "modifierExtension code ",
			map[string]string{
				"code":             "CodeableConcept",
				"valueQuantity":    "Quantity",
				"dataAbsentReason": "CodeableConcept",
			},
		}, true
	case "Meta":
		return element{
			common + "versionId lastUpdated source profile security tag ",
			map[string]string{"tag": "Coding", "security": "Coding"},
		}, true
	case "Identifier":
		return element{
			common + "use type system value period assigner ",
			map[string]string{"type": "CodeableConcept", "assigner": "Reference"},
		}, true
	case "CodeableConcept":
		return element{common + "coding text ", map[string]string{"coding": "Coding"}}, true
	case "Coding":
		return element{common + "system version code display userSelected ", nil}, true
	case "Quantity":
		return element{common + "value comparator unit system code ", nil}, true
	case "Annotation":
		return element{
			common + "authorReference authorString time text ",
			map[string]string{"authorReference": "Reference"},
		}, true
	case "Reference":
		return element{common + "reference type identifier display ", map[string]string{"identifier": "Identifier"}}, true
	}

	return element{}, false
}

// unknownElement returns the path of the first element that the FHIR type does not have, or "".
func unknownElement(raw json.RawMessage, fhirType, path string) string {
	known, ok := elementsOf(fhirType)
	if !ok {
		return ""
	}

	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte("[")) {
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			return path
		}

		for i, item := range list {
			if at := unknownElement(item, fhirType, fmt.Sprintf("%s[%d]", path, i)); at != "" {
				return at
			}
		}

		return ""
	}

	var object map[string]json.RawMessage
	if json.Unmarshal(raw, &object) != nil {
		return path
	}

	names := strings.Fields(known.names)
	for _, name := range sortedKeys(object) {
		at := path + "." + name
		if !slices.Contains(names, strings.TrimPrefix(name, "_")) { // _name carries extensions of a primitive
			return at
		}
		if at := unknownElement(object[name], known.types[name], at); at != "" {
			return at
		}
	}

	return ""
}
