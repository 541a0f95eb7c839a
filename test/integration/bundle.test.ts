import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";

const CHECKOUT = fileURLToPath(new URL("../..", import.meta.url));
const run = promisify(execFile);

let checkout: string;

/** A checkout of its own, so that whatever else uses this one finds its bundle as it was. */
beforeEach(async () => {
  checkout = await mkdtemp(join(tmpdir(), "bootshim-bundle-"));
  for (const name of ["src", "scripts", "package.json", "deno.json", "deno.lock"]) {
    await cp(join(CHECKOUT, name), join(checkout, name), { recursive: true });
  }
  await mkdir(join(checkout, ".cache"));
  // A Deno on PATH needs no copy of its own.
  await symlink(join(CHECKOUT, ".cache/deno"), join(checkout, ".cache/deno"));
  await symlink(join(CHECKOUT, "node_modules"), join(checkout, "node_modules"));
});

afterEach(() => rm(checkout, { recursive: true, force: true }));

const script = async (name: string, ...args: string[]) =>
  (await run(join(checkout, "scripts", name), args, {
    env: { ...process.env, BOOTSHIM_CONFIG: "/dev/null" },
  }))
    .stdout;

async function bundles(): Promise<string[]> {
  const names = await readdir(join(checkout, ".cache/bundle"));
  return names.filter((name) => name !== "current");
}

/** Makes the bundle tell that it is one. */
async function markBundle(): Promise<void> {
  for (const name of await bundles()) {
    const main = join(checkout, ".cache/bundle", name, "main.js");
    await writeFile(main, `console.log("bundled");\n${await readFile(main, "utf8")}`);
  }
}

test("bootshim: runs the bundle, and the sources again as soon as one of them is another", async () => {
  expect(await script("bootshim", "version")).toBe("0.1.0\n");
  await script("bundle");
  await markBundle();
  expect(await script("bootshim", "version")).toBe("bundled\n0.1.0\n");

  const version = join(checkout, "src/cli/version.ts");
  await writeFile(version, 'export const VERSION = "0.1.1";\n');
  // Neither its size nor an old date hides it.
  await utimes(version, new Date(0), new Date(0));
  expect(await script("bootshim", "version")).toBe("0.1.1\n");

  await script("bundle");
  await markBundle();
  expect(await script("bootshim", "version")).toBe("bundled\n0.1.1\n");
});

test("bootshim: a file that came or went, and a copied checkout, make it run the sources", async () => {
  await script("bundle");
  await markBundle();
  await writeFile(join(checkout, "src/cli/more.ts"), "export {};\n");
  expect(await script("bootshim", "version")).toBe("0.1.0\n");
  await rm(join(checkout, "src/cli/more.ts"));
  expect(await script("bootshim", "version")).toBe("bundled\n0.1.0\n");

  await cp(join(checkout, "src"), join(checkout, "copy"), { recursive: true, preserveTimestamps: true });
  await rm(join(checkout, "src"), { recursive: true });
  await cp(join(checkout, "copy"), join(checkout, "src"), { recursive: true, preserveTimestamps: true });
  expect(await script("bootshim", "version")).toBe("0.1.0\n");
});

test("bundle: several makers at once leave one that runs, and the threads are files of their own", async () => {
  await Promise.all([script("bundle"), script("bundle"), script("bundle")]);
  await markBundle();
  expect(await script("bootshim", "version")).toBe("bundled\n0.1.0\n");
  const [name = ""] = await bundles();
  const files = await readdir(join(checkout, ".cache/bundle", name));
  const threads = (await readdir(join(checkout, "src"), { recursive: true }))
    .filter((path) => /(^|_|\/)worker\.ts$/.test(path))
    .map((path) => path.replaceAll("/", "_").replace(/\.ts$/, ".js"));
  expect(threads).toContain("libvirt_worker.js");
  expect(files).toEqual(expect.arrayContaining(threads));
});
