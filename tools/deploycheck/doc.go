// Package deploycheck holds docker-compose.yml and deploy/ against what reads them: the compose
// specification, kustomize, Kubernetes' types, and .env.example, which lists every setting of our binary. It
// is a module of its own, so that none of them is among our dependencies; all of it is tests.
package deploycheck
