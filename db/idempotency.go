package db

import (
	"context"
	"slices"

	"github.com/google/uuid"
)

// Request is a request that its sender may repeat without a second effect. Key and body are stored as keyed
// hashes: the body is a reading, and there are few readings to guess.
//
// While the key of the hashes is rotated, a request is found under the old key and under the new one. Two
// processes of which only one has begun to use the new key may remember the same key at the same moment; then the
// readings themselves tell whether they are stored.
type Request struct {
	Key  string // empty: the sender gave none
	Body []byte
}

func (q *Queries) keyDigests(practice, key string) [][]byte {
	return q.ring().Digests("idempotency_keys.key", practice, key)
}

func (q *Queries) bodyDigests(practice string, body []byte) [][]byte {
	return q.ring().Digests("idempotency_keys.request_hash", practice, string(body))
}

// sameBody reports whether a request's body is the one that was remembered.
func (q *Queries) sameBody(practice string, body, hash []byte) bool {
	return slices.ContainsFunc(q.bodyDigests(practice, body), func(digest []byte) bool { return slices.Equal(digest, hash) })
}

// RememberRequestParams is a request, and the observation that it stands for.
type RememberRequestParams struct {
	PracticeCode  string
	Request       Request
	ObservationID uuid.UUID
}

// RememberRequest adds no row when the key is known already. When another request is adding the key, it waits
// for that one to end.
func (q *Queries) RememberRequest(ctx context.Context, arg RememberRequestParams) (added int64, err error) {
	return q.rememberRequest(ctx, rememberRequestParams{
		PracticeCode:  arg.PracticeCode,
		Key:           q.keyDigests(arg.PracticeCode, arg.Request.Key)[0],
		RequestHash:   q.bodyDigests(arg.PracticeCode, arg.Request.Body)[0],
		ObservationID: arg.ObservationID,
	})
}

// RememberRequestsParams are requests, and the observation that each stands for.
type RememberRequestsParams struct {
	PracticeCode   string
	Requests       []Request
	ObservationIDs []uuid.UUID
}

// RememberRequests adds many keys, and leaves out those that are known already.
func (q *Queries) RememberRequests(ctx context.Context, arg RememberRequestsParams) (added int64, err error) {
	params := rememberRequestsParams{PracticeCode: arg.PracticeCode, ObservationIDs: arg.ObservationIDs}
	for _, request := range arg.Requests {
		params.Keys = append(params.Keys, q.keyDigests(arg.PracticeCode, request.Key)[0])
		params.RequestHashes = append(params.RequestHashes, q.bodyDigests(arg.PracticeCode, request.Body)[0])
	}
	return q.rememberRequests(ctx, params)
}

// FindRequestParams is a request.
type FindRequestParams struct {
	PracticeCode string
	Request      Request
}

// FindRequestRow is what an earlier request with the same key has stored.
type FindRequestRow struct {
	SameBody    bool // as the earlier request had
	Observation Observation
}

// FindRequest returns what an earlier request with the same key has stored.
func (q *Queries) FindRequest(ctx context.Context, arg FindRequestParams) (FindRequestRow, error) {
	row, err := q.findRequest(ctx, findRequestParams{
		PracticeCode: arg.PracticeCode,
		Keys:         q.keyDigests(arg.PracticeCode, arg.Request.Key),
	})
	if err != nil {
		return FindRequestRow{}, err
	}
	opened, err := q.openObservation(row.SealedObservation)
	return FindRequestRow{q.sameBody(arg.PracticeCode, arg.Request.Body, row.RequestHash), opened}, err
}

// FindRequestsParams are requests.
type FindRequestsParams struct {
	PracticeCode string
	Requests     []Request
}

// FoundRequest is an earlier request.
type FoundRequest struct {
	SameBody      bool // as the request had that was looked for
	ObservationID uuid.UUID
}

// FindRequests returns the earlier requests with the same keys, by their keys.
func (q *Queries) FindRequests(ctx context.Context, arg FindRequestsParams) (map[string]FoundRequest, error) {
	params := findRequestsParams{PracticeCode: arg.PracticeCode}
	sent := map[string]Request{}
	for _, request := range arg.Requests {
		for _, digest := range q.keyDigests(arg.PracticeCode, request.Key) {
			params.Keys = append(params.Keys, digest)
			sent[string(digest)] = request
		}
	}
	rows, err := q.findRequests(ctx, params)
	if err != nil {
		return nil, err
	}

	found := map[string]FoundRequest{}
	for _, row := range rows {
		request := sent[string(row.Key)]
		found[request.Key] = FoundRequest{q.sameBody(arg.PracticeCode, request.Body, row.RequestHash), row.ObservationID}
	}
	return found, nil
}
