// Shows the contract. The page has no script of its own inline: the Content-Security-Policy forbids it.
SwaggerUIBundle({
  url: "/openapi.yaml",
  dom_id: "#docs",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  validatorUrl: null, // the default asks a server elsewhere
});
