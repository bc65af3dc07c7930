package audit

// Action says what was done, as "thing.verb". The verbs read, search, create, update, delete and execute are those of
// FHIR's AuditEvent.action; others stand for what it calls execute.
type Action string

// The actions.
const (
	// Patients.
	PatientRead      Action = "patient.read"
	PatientSearch    Action = "patient.search"
	PatientCreate    Action = "patient.create"
	PatientUpdate    Action = "patient.update"
	PatientArchive   Action = "patient.archive"
	PatientUnarchive Action = "patient.unarchive"
	PatientImport    Action = "patient.import" // from eCW, a row a patient
	SyncStatusRead   Action = "patient.sync_status.read"

	// Patients in eCW, and imports.
	ECWPatientSearch Action = "ecw_patient.search"
	ImportCreate     Action = "import.create"
	ImportRead       Action = "import.read"

	// Readings and their FHIR resources.
	ObservationCreate    Action = "observation.create"
	ObservationRead      Action = "observation.read"
	ObservationTransform Action = "observation.transform"
	ObservationTransmit  Action = "observation.transmit" // a person asks for it
	ObservationCancel    Action = "observation.cancel"
	ObservationSend      Action = "observation.send"      // what follows leaves for eCW
	ObservationDelivered Action = "observation.delivered" // eCW has it, or the delivery failed
	ObservationPrune     Action = "observation.prune"     // what RETAIN_READINGS keeps no longer, a row a batch

	// Deliveries.
	TransmissionRead   Action = "transmission.read"
	TransmissionSearch Action = "transmission.search"
	PendingProcess     Action = "pending.process"
	ConnectionTest     Action = "connection.test"

	// People, API keys and tokens.
	SignIn        Action = "sign_in"
	SignOut       Action = "sign_out"
	TokenRefresh  Action = "token.refresh"
	TokenRevoke   Action = "token.revoke"
	AccessRefuse  Action = "access.refuse" // a token that is not good, or a role that may not do it
	AccountRead   Action = "account.read"
	AccountSearch Action = "account.search"
	AccountChange Action = "account.change" // the reason is the account event's action
	APIKeyRead    Action = "api_key.read"
	APIKeySearch  Action = "api_key.search"
	APIKeyCreate  Action = "api_key.create"
	APIKeyRevoke  Action = "api_key.revoke"

	// Keys, the schema, histories, and the trail itself.
	KeysChange    Action = "keys.change"
	SchemaMigrate Action = "schema.migrate"
	PayloadDecode Action = "payload.decode"
	AuditSearch   Action = "audit.search"
	AuditExport   Action = "audit.export"
	AuditVerify   Action = "audit.verify"
	AuditPrune    Action = "audit.prune" // the resource is the month
)
