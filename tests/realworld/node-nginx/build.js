const fs = require("fs");
const { marked } = require("marked");
fs.mkdirSync("dist");
fs.writeFileSync("dist/index.html", marked.parse("# built with node"));
