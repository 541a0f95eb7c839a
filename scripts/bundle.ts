/** Writes src/main.ts with all it imports, packages included, as a few files into the folder that is named: see scripts/bundle. */
import { basename, dirname, join, relative, resolve } from "node:path";
import process from "node:process";
import { type Plugin, rolldown } from "rolldown";

const [directory] = process.argv.slice(2);
if (!directory) throw new TypeError("Cannot bundle: name a folder to write to");
const root = resolve(import.meta.dirname ?? "", "..");
const source = join(root, "src");

/** A thread's first file, `new URL("./NAME.ts", import.meta.url)`, becomes an entry of its own beside the bundle's files. */
const threads: Plugin = {
  name: "threads",
  transform(code, path) {
    if (!path.startsWith(`${source}/`)) return null;
    const found = code.replaceAll(/new URL\("(\.\/\w+\.ts)", import\.meta\.url\)/g, (_, name: string) => {
      const id = resolve(dirname(path), name);
      const fileName = `${relative(source, id).replaceAll("/", "_").replace(/\.ts$/, "")}.js`;
      this.emitFile({ type: "chunk", id, fileName });
      return `new URL("./${fileName}", import.meta.url)`;
    });
    if (found.replaceAll(/"\.\/\w+\.js", import\.meta\.url/g, "").includes("import.meta")) {
      throw new Error(`Cannot bundle "${path}": import.meta means another place in a bundle`);
    }
    return found;
  },
};

/** Deno reads what `import("…")` names before the program starts, though most runs never come to it: so it is not named plainly. */
const lateImports: Plugin = {
  name: "late-imports",
  renderChunk: (code) => code.replaceAll(/\bimport\(("\.\/[^"]+")\)/g, "import(String($1))"),
};

const bundle = await rolldown({
  input: { main: join(source, "main.ts") },
  platform: "node",
  // Finds its native part by where it lies itself.
  external: ["koffi"],
  plugins: [threads, lateImports],
});
// Not minified: stacks name our functions, and it starts no slower.
const { output } = await bundle.write({ dir: directory, format: "esm", chunkFileNames: "[name]-[hash].js" });
await bundle.close();
for (const file of output) {
  if (file.type === "chunk" && basename(file.fileName) !== file.fileName) {
    throw new Error(`Cannot bundle: "${file.fileName}" does not lie beside the others`);
  }
}
