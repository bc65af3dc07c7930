package ecw

import (
	"context"
	"maps"
	"slices"
)

// Capabilities is what the FHIR server says of itself. It is not reliable: eCW leaves out some of what it can
// do, and lists interactions that an app is not allowed.
type Capabilities struct {
	FHIRBaseURL string
	FHIRVersion string // such as "4.0.1"
	// Interactions are sorted, each a resource type and "read" (by id or by search) or "write" (create):
	// "Patient.read".
	Interactions []string
}

// capabilityStatement is the part of the resource that we read.
type capabilityStatement struct {
	FHIRVersion string            `json:"fhirVersion"`
	Rest        short[restOfFHIR] `json:"rest"`
}

type restOfFHIR struct {
	Mode     string                 `json:"mode"`
	Resource short[offeredResource] `json:"resource"`
}

type offeredResource struct {
	Type        string             `json:"type"`
	Interaction short[interaction] `json:"interaction"`
}

type interaction struct {
	Code string `json:"code"`
}

// Capabilities reads the server's CapabilityStatement (FHIR R4 §3.1.0.4). FHIR makes it public, but the
// access token is sent too, because a gateway in front of the server may want it. The error is an [*Error]
// with Op "capabilities" or "token".
func (c *Client) Capabilities(ctx context.Context) (Capabilities, error) {
	res, err := c.authorized(ctx, c.readRequest(OpCapabilities, "/metadata", nil))
	if err != nil {
		return Capabilities{}, err
	}

	var statement capabilityStatement
	if err := c.judgeRead(res, OpCapabilities, "CapabilityStatement", &statement); err != nil {
		return Capabilities{}, err
	}

	return Capabilities{FHIRBaseURL: c.baseURL, FHIRVersion: statement.FHIRVersion, Interactions: statement.interactions()}, nil
}

func (s capabilityStatement) interactions() []string {
	found := map[string]bool{}
	for _, rest := range s.Rest {
		if rest.Mode != "server" {
			continue
		}

		for _, resource := range rest.Resource {
			for _, interaction := range resource.Interaction {
				switch interaction.Code {
				case "read", "search-type":
					found[resource.Type+".read"] = true
				case "create":
					found[resource.Type+".write"] = true
				}
			}
		}
	}

	return slices.Sorted(maps.Keys(found))
}
