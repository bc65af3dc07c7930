package ecw

// Remedy says what a person can do about an [Error] with this Code. It is longer than [Error.Message], which
// is shown in lists and logs. Every code has one.
func Remedy(code string) string {
	switch code {
	case "invalid_client":
		return "Check that ECW_CLIENT_ID matches the portal; that eCW can fetch the JWKS URL, and finds there, under the kid of " +
			"ECW_KEY_ID, the public half of ECW_PRIVATE_KEY_FILE and not another key; and that ECW_TOKEN_URL is the address by which " +
			"eCW itself knows its token endpoint: it is the assertion's aud, and behind a proxy eCW may expect another."
	case "invalid_grant":
		return "Verify that the JWKS endpoint is publicly accessible, that the kid matches, and that ECW_SCOPE holds only scopes " +
			"granted to the app."
	case "invalid_scope":
		return "Set ECW_SCOPE to the scopes that eCW has granted to the app, perhaps under SMART v2's names (system/Patient.rs " +
			"system/Observation.c system/Observation.rs). Without a scope to create Observations nothing can be delivered."
	case "insufficient_scope":
		return "Have the missing scopes granted in the eCW developer portal. Change ECW_SCOPE only when eCW grants the same " +
			"under other names (system/Observation.c means create): without a scope to create Observations nothing can be delivered."
	case "key_not_found":
		return "Ensure that ECW_PRIVATE_KEY_FILE (backend_service) or ECW_CLIENT_SECRET (confidential_client) is set correctly in " +
			"your environment."
	case "unauthorized", "forbidden", "access_denied":
		return "eCW has not activated the app or its scopes for this practice: contact your eCW account representative."
	case CodeRateLimited:
		return "Nothing was sent, because Vantrexia's own limit of ECW_RATE_LIMIT requests a minute, deliveries included, " +
			"is used up: try again in a minute."
	case "throttled":
		return "eCW takes 250 requests a minute from a practice, deliveries included: try again in a minute."
	case "timeout":
		return "eCW did not answer in time: try again, and check the network path to the token endpoint."
	case "transient", "http_500", "http_502", "http_503", "http_504":
		return "eCW answers, but fails while it handles the request: wait, then test again. Readings are kept meanwhile and " +
			"delivered later without further action. If it lasts, check ECW_TOKEN_URL and ECW_FHIR_BASE_URL, because a gateway " +
			"gives the same answer for a wrong address; then ask eCW's support."
	}

	return "Check ECW_ENVIRONMENT, ECW_TOKEN_URL and ECW_FHIR_BASE_URL, and that eCW can be reached from this host."
}
