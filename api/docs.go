package api

import (
	"compress/gzip"
	"embed"
	"errors"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/labstack/echo/v4"
	"github.com/swaggest/swgui/v5/static"
)

//go:embed docs
var docsPage embed.FS

// docsPolicy lets the page load from and send to this server only. Swagger UI has inline styles, and its
// pictures are data URLs.
const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const mimeYAML = "application/yaml" // RFC 9512

func (s *server) getContract(c echo.Context) error {
	return c.Blob(http.StatusOK, mimeYAML, openapiYAML)
}

func (s *server) getDocs(c echo.Context) error {
	page, err := docsPage.ReadFile("docs/index.html")
	if err != nil {
		return err
	}
	c.Response().Header().Set(echo.HeaderContentSecurityPolicy, docsPolicy)
	return c.HTMLBlob(http.StatusOK, page)
}

// getDocsFile serves our script, and Swagger UI's files, which are packed with gzip.
func (s *server) getDocsFile(c echo.Context) error {
	name := c.Param("file")
	media := map[string]string{".js": "text/javascript", ".css": "text/css", ".png": "image/png"}[path.Ext(name)]
	if media == "" || !fs.ValidPath(name) {
		return echo.ErrNotFound
	}

	c.Response().Header().Set(echo.HeaderXContentTypeOptions, "nosniff")
	if own, err := docsPage.ReadFile("docs/" + name); err == nil {
		return c.Blob(http.StatusOK, media, own)
	}

	if plain, err := static.FS.ReadFile(name); err == nil {
		return c.Blob(http.StatusOK, media, plain)
	}

	packed, err := static.FS.Open(name + ".gz")
	if errors.Is(err, fs.ErrNotExist) {
		return echo.ErrNotFound
	}
	if err != nil {
		return err
	}
	defer packed.Close()

	c.Response().Header().Set(echo.HeaderVary, echo.HeaderAcceptEncoding)
	if strings.Contains(c.Request().Header.Get(echo.HeaderAcceptEncoding), "gzip") {
		c.Response().Header().Set(echo.HeaderContentEncoding, "gzip")
		return c.Stream(http.StatusOK, media, packed)
	}

	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		return err
	}
	return c.Stream(http.StatusOK, media, unpacked)
}
