// Package account says who a caller of the API is, and what the caller may do. The roles are those of the
// Vantrexia platform, and service for machines. Patients do not sign in here.
package account

import (
	"slices"
	"strings"
)

// Role is what a caller is in the practice.
type Role string

// The roles. DataMonitor looks after the deliveries, and sees no patient data. Service is a machine, such as
// a device gateway: it posts readings, and reads only those that it posted.
const (
	Admin           Role = "admin"
	ClinicalManager Role = "clinical_manager"
	Provider        Role = "provider"
	Nurse           Role = "nurse"
	MA              Role = "ma" // medical assistant
	DataMonitor     Role = "data_monitor"
	Service         Role = "service"
)

// Right is something that only some roles may do. Each operation of the API needs one.
type Right string

// The rights.
const (
	// PostReadings is to store a reading, which then goes to eCW, and to look at it afterwards.
	PostReadings Right = "post readings"
	// SeePatients is to see who somebody is and what was measured. Whatever shows a name or a value needs it.
	SeePatients Right = "see patient data"
	// ChangePatients is to create, change, archive and link patients.
	ChangePatients Right = "change patients"
	// ImportPatients is to browse eCW's patients and to import them.
	ImportPatients Right = "import patients"
	// SeeDeliveries is to see where transmissions stand, without names and values.
	SeeDeliveries Right = "see deliveries"
	// SteerDeliveries is to transform, to transmit now, and to cancel.
	SteerDeliveries Right = "steer deliveries"
	// TestConnection is to try our credentials and the connection with eCW.
	TestConnection Right = "test the connection"
	// SweepPending is to start everything that is pending, at once.
	SweepPending Right = "start what is pending"
	// DecodeHistories is to see what the histories of workflows hold encrypted.
	DecodeHistories Right = "decode histories"
	// SeeAudit is to search and to export the audit trail.
	SeeAudit Right = "see the audit trail"
	// ManageAccounts is to manage people, API keys and tokens.
	ManageAccounts Right = "manage accounts"
	// OwnAccount is what everybody who signs in may do with their own account.
	OwnAccount Right = "own account"
)

// table says which roles have a right. It is the only place that does.
var table = map[Right][]Role{
	PostReadings:    {Admin, ClinicalManager, Provider, Nurse, MA, Service},
	SeePatients:     {Admin, ClinicalManager, Provider, Nurse, MA},
	ChangePatients:  {Admin, ClinicalManager, Provider, Nurse, MA},
	ImportPatients:  {Admin, ClinicalManager, Provider, Nurse},
	SeeDeliveries:   {Admin, ClinicalManager, Provider, Nurse, MA, DataMonitor},
	SteerDeliveries: {Admin, ClinicalManager, Provider, Nurse, DataMonitor},
	TestConnection:  {Admin, ClinicalManager, Provider, DataMonitor},
	SweepPending:    {Admin},
	DecodeHistories: {Admin},
	SeeAudit:        {Admin},
	ManageAccounts:  {Admin},
	OwnAccount:      {Admin, ClinicalManager, Provider, Nurse, MA, DataMonitor},
}

// Roles lists all roles. The slice is the caller's.
func Roles() []Role {
	return []Role{Admin, ClinicalManager, Provider, Nurse, MA, DataMonitor, Service}
}

// RolesWith lists the roles that have a right, in the order of Roles. The slice is the caller's.
func RolesWith(right Right) []Role { return slices.Clone(table[right]) }

// Known reports whether there is such a role.
func (r Role) Known() bool { return slices.Contains(Roles(), r) }

// Has reports whether the role has a right. An unknown role has none.
func (r Role) Has(right Right) bool { return slices.Contains(table[right], r) }

// JoinRoles lists roles for people: "admin, nurse".
func JoinRoles(roles []Role) string {
	names := make([]string, len(roles))
	for i, role := range roles {
		names[i] = string(role)
	}
	return strings.Join(names, ", ")
}
