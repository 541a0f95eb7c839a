import { open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { ShimError } from "../errors.ts";
import type { FindPlaces, Places } from "../registry/mirror/place.ts";
import { parseHostsFile } from "./hosts_file.ts";

const MAX_FILE_BYTES = 1024 * 1024;

/**
 * Looks a registry up in folders as containerd and Docker have them: `HOST_PORT_/`, `HOST:PORT/`, then `_default/`, with
 * a `hosts.toml` or else with `*.crt` of authorities and a pair of `*.cert` and `*.key`. The first folder that is there
 * counts, alone.
 */
export function findPlacesIn(directories: readonly string[]): FindPlaces {
  return async (host) => {
    const underscored = host.replace(/:([0-9]+)$/, "_$1_");
    for (const directory of directories) {
      for (const name of new Set([underscored, host, "_default"])) {
        const places = await readPlaces(join(directory, name));
        if (places !== undefined) return name === "_default" ? places : { ...places, isNamed: true };
      }
    }
    return { mirrors: [] };
  };
}

async function readPlaces(directory: string): Promise<Places | undefined> {
  const path = join(directory, "hosts.toml");
  try {
    const names = await readdir(directory);
    if (names.includes("hosts.toml")) return parseHostsFile(await readText(path), path);
    return placesOfCertificates(directory, names.sort());
  } catch (error) {
    if (error instanceof ShimError) throw error;
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    throw new ShimError(
      "CONFIG_INVALID",
      `Cannot read "${directory}": ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    );
  }
}

function placesOfCertificates(directory: string, names: readonly string[]): Places {
  const certificate = names.find((name) => name.endsWith(".cert"));
  const key = certificate?.replace(/cert$/, "key");
  if (key !== undefined && !names.includes(key)) {
    throw new ShimError(
      "CONFIG_INVALID",
      `Cannot use "${join(directory, certificate ?? "")}": "${key}" is missing`,
    );
  }
  return {
    mirrors: [],
    tls: {
      authorities: names.filter((name) => name.endsWith(".crt")).map((name) => join(directory, name)),
      ...(certificate === undefined || key === undefined
        ? {}
        : { client: { certificate: join(directory, certificate), key: join(directory, key) } }),
    },
  };
}

async function readText(path: string): Promise<string> {
  await using file = await open(path);
  const { buffer, bytesRead } = await file.read({ buffer: new Uint8Array(MAX_FILE_BYTES + 1) });
  if (bytesRead <= MAX_FILE_BYTES) return new TextDecoder().decode(buffer.subarray(0, bytesRead));
  throw new ShimError("CONFIG_INVALID", `Cannot read "${path}": it is over ${MAX_FILE_BYTES} bytes`);
}
