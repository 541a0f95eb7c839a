import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { CODES } from "../../src/errors.ts";

const project = join(import.meta.dirname ?? "", "../..");

/** All TypeScript below a folder, as text by path. */
function sources(folder: string): readonly (readonly [path: string, text: string])[] {
  return readdirSync(join(project, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => [join(folder, name), readFileSync(join(project, folder, name), "utf8")] as const);
}

function naming(code: string, files: readonly (readonly [string, string])[]): readonly string[] {
  return files.filter(([, text]) => text.includes(`"${code}"`)).map(([path]) => path);
}

/** Of the README's table: the codes of each exit code. */
function documented(): ReadonlyMap<string, number> {
  const readme = readFileSync(join(project, "README.md"), "utf8");
  const rows = readme.matchAll(/^\| ([0-9]+) \| [^|]* \| ([^|]*) \|$/gm);
  return new Map(
    [...rows].flatMap(([, exit = "", codes = ""]) =>
      [...codes.matchAll(/`([A-Z_]+)`/g)].map(([, code = ""]) => [code, Number(exit)] as const)
    ),
  );
}

describe("AP16 every code", () => {
  const told = documented();
  // What lists all codes shows nothing of one: neither this table nor what a route may answer with.
  const raising = sources("src").filter(([path]) => !/errors\.ts$|api\/routes\//.test(path));
  const asserting = sources("test").filter(([path]) =>
    path.endsWith(".test.ts") && !/errors?(_codes)?\.test\.ts$/.test(path)
  );

  it.each(Object.entries(CODES))(
    "%s is documented, can be reached, and is reached by a test",
    (code, { exit }) => {
      expect(told.get(code)).toBe(exit);
      expect(naming(code, raising)).not.toEqual([]);
      expect(naming(code, asserting)).not.toEqual([]);
    },
  );

  it("and no other is documented", () => {
    expect([...told.keys()].filter((code) => !Object.hasOwn(CODES, code))).toEqual([]);
  });
});
