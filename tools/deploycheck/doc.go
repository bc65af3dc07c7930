// Package deploycheck checks docker-compose.yml and deploy/ with the Compose specification, kustomize,
// Kubernetes' types, and .env.example, which lists every setting of our binary. It has tests only. It is a
// module of its own, so that these libraries are not among our dependencies.
package deploycheck
