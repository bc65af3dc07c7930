package main

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/vantrexia/vantrexia/ecw/sandbox"
)

// poster sends Observations to the EHR and does nothing beyond that: it keeps an access token and the connections. It is not
// package ecw, so that a change there does not move the floor.
type poster struct {
	base string
	key  *rsa.PrivateKey

	mu    sync.Mutex
	token string
	until time.Time
}

func newPoster(base, keyFile string) (*poster, error) {
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM", keyFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return &poster{base: base, key: key.(*rsa.PrivateKey)}, nil
}

// authenticate returns the token it has, or a new one.
func (p *poster) authenticate(ctx context.Context) (string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().Before(p.until) {
		return p.token, nil
	}

	assertion := jwt.NewWithClaims(jwt.SigningMethodRS384, jwt.RegisteredClaims{
		Issuer:    clientID,
		Subject:   clientID,
		Audience:  jwt.ClaimStrings{p.base + sandbox.TokenPath},
		ExpiresAt: jwt.NewNumericDate(time.Now().Add(4 * time.Minute)),
		ID:        uuid.NewString(),
	})
	assertion.Header["kid"] = keyID
	signed, err := assertion.SignedString(p.key)
	if err != nil {
		return "", err
	}

	form := url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {signed},
		"scope":                 {strings.Join(sandbox.DefaultScopes(), " ")},
	}
	answer, _, err := p.send(ctx, sandbox.TokenPath, "application/x-www-form-urlencoded", "", []byte(form.Encode()))
	if err != nil {
		return "", err
	}
	var granted struct {
		Token   string `json:"access_token"`
		Seconds int    `json:"expires_in"`
	}
	if err := json.Unmarshal(answer, &granted); err != nil {
		return "", err
	}
	p.token, p.until = granted.Token, time.Now().Add(time.Duration(granted.Seconds-30)*time.Second)
	return p.token, nil
}

// post creates the Observation and returns its id in the EHR.
func (p *poster) post(ctx context.Context, resource []byte) (string, error) {
	token, err := p.authenticate(ctx)
	if err != nil {
		return "", err
	}
	_, header, err := p.send(ctx, sandbox.FHIRPath+practice+"/Observation", "application/fhir+json", token, resource)
	if err != nil {
		return "", err
	}
	// …/Observation/<id>/_history/1
	id := path.Base(path.Dir(path.Dir(header.Get("Location"))))
	if id == "." {
		return "", errors.New("the EHR does not say where the Observation is")
	}
	return id, nil
}

func (p *poster) send(ctx context.Context, to, contentType, token string, body []byte) ([]byte, http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.base+to, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("Accept", "application/json, application/fhir+json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= 300 {
		err = fmt.Errorf("POST %s: HTTP %d: %s", to, res.StatusCode, answer)
	}
	return answer, res.Header, err
}
