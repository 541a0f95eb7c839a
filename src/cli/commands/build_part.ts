import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import type { BuildPart } from "../../agent/build_image.ts";
import type { Environment } from "../../config/settings.ts";
import { ShimError } from "../../errors.ts";
import { requireArchitecture, requireVariant } from "../../image/platform.ts";

const FILE_ROLES = ["rootfs", "kernel", "initramfs", "squashfs", "uki", "iso"] as const;
const KEYS: readonly string[] = ["arch", "variant", "cmdline", ...FILE_ROLES];

/**
 * Reads one `--config` of `build`: `arch=amd64,kernel=FILE,…`. A value may hold `=`, and a comma written as `,,`.
 *
 * @throws {ShimError} REQUEST_INVALID
 */
export async function readBuildPart(text: string, environment: Environment): Promise<BuildPart> {
  const values = splitPairs(text);
  const path = (value: string) => resolve(environment.workingDirectory, value);
  const files = FILE_ROLES.flatMap((role): [typeof role, string][] => {
    const value = values.get(role);
    return value === undefined ? [] : [[role, path(value)]];
  });
  const architecture = values.get("arch");
  if (architecture === undefined) refuse(text, "it has no arch=, must name the architecture");
  if (files.length === 0) {
    refuse(text, `it names no file, must name at least one of ${FILE_ROLES.join(", ")}`);
  }
  const commandLineFile = values.get("cmdline");
  return {
    architecture: requireArchitecture(architecture),
    variant: requireVariant(values.get("variant") ?? "virtualization"),
    commandLine: commandLineFile === undefined ? undefined : await readCommandLine(path(commandLineFile)),
    files: new Map(files),
  };
}

function splitPairs(text: string): Map<string, string> {
  const values = new Map<string, string>();
  // A doubled comma is a comma of the value, as in QEMU's options. No argument of a program can hold a NUL.
  for (const escaped of text.replaceAll(",,", "\0").split(",")) {
    const pair = escaped.replaceAll("\0", ",");
    const equals = pair.indexOf("=");
    const key = equals === -1 ? pair : pair.slice(0, equals);
    if (equals === -1 || !KEYS.includes(key)) {
      refuse(
        text,
        `${JSON.stringify(pair)} is not one of ${KEYS.map((each) => `${each}=`).join(" ")}`,
      );
    }
    if (values.has(key)) refuse(text, `${key}= stands twice`);
    const value = pair.slice(equals + 1);
    if (value === "") refuse(text, `${key}= is empty, must have a value`);
    values.set(key, value);
  }
  return values;
}

/**
 * Reads the `--annotation`s of `build`: `KEY=VALUE` each.
 *
 * @throws {ShimError} REQUEST_INVALID
 * @see https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md#rules
 */
export function readAnnotations(texts: readonly string[]): Map<string, string> {
  const annotations = new Map<string, string>();
  for (const text of texts) {
    const equals = text.indexOf("=");
    const key = text.slice(0, Math.max(equals, 0));
    if (key === "" || annotations.has(key)) {
      const why = key === "" ? "must be KEY=VALUE" : `${JSON.stringify(key)} stands twice`;
      throw new ShimError("REQUEST_INVALID", `Cannot use --annotation ${JSON.stringify(text)}: ${why}`);
    }
    annotations.set(key, text.slice(equals + 1));
  }
  return annotations;
}

async function readCommandLine(path: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    throw new ShimError(
      "REQUEST_INVALID",
      `Cannot read command line file "${path}": ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

function refuse(text: string, why: string): never {
  throw new ShimError("REQUEST_INVALID", `Cannot use --config ${JSON.stringify(text)}: ${why}`, {
    details: { remedy: "see: bootshim build --help" },
  });
}
