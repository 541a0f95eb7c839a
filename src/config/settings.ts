/**
 * @module config: what the user may set, from which place, and its default. Reads one TOML file, and folders of
 * registries' hosts. Precedence, strongest first: command line, environment, file, default.
 */
import { readFile } from "node:fs/promises";
import { isAbsolute, resolve } from "node:path";
import { parse, TomlError } from "smol-toml";
import { z } from "zod";
import type { CacheBudget } from "../agent/agent_context.ts";
import { parseDuration, parseSize } from "../agent/quantity.ts";
import type { ImageLimits } from "../agent/image_limits.ts";
import { ShimError } from "../errors.ts";
import type { RegistrySettings } from "../registry/registries.ts";
import { lineOfKey } from "./line_of_key.ts";
import { policySchema, registrySchema, registrySettingsOf } from "./registry_settings.ts";

function read<T>(text: string, context: z.RefinementCtx, parse: (text: string, what: string) => T): T {
  try {
    return parse(text, "it as");
  } catch (error) {
    context.addIssue(error instanceof Error ? error.message : String(error));
    return z.NEVER;
  }
}

const duration = z.string().transform((text, context) => read(text, context, parseDuration));
/** One that must not be zero: nothing would ever be in time. */
const limitingDuration = duration.refine((spanMs) => spanMs > 0, "must be over 0");
const size = z.union([
  z.int().min(0),
  z.string().transform((text, context) => read(text, context, parseSize)),
]);

/** The configuration file. Strict: a misspelt key is an error, not a setting that silently does nothing. */
export const fileSchema = z.strictObject({
  /** Where images and machines are kept. */
  root: z.string().startsWith("/", "must be an absolute path").optional(),
  registry: registrySchema,
  policy: policySchema,
  limits: z.strictObject({
    max_layer_bytes: size.default(2 ** 40),
    max_image_bytes: size.default(2 ** 41),
    max_layers: z.int().positive().default(1000),
  }).prefault({}),
  /** What the cache may take, and shall leave; sizes as people write them. */
  cache: z.strictObject({
    max_bytes: size.optional(),
    keep_free_bytes: size.optional(),
    min_age: duration.optional(),
  }).prefault({}),
  /** The service. */
  api: z.strictObject({
    max_running: z.int().min(1).max(1000).default(32),
    max_pending: z.int().min(1).max(100_000).default(1000),
    collect_every: duration.optional(),
    headers_timeout: limitingDuration.prefault("10s"),
    request_timeout: limitingDuration.prefault("30s"),
    idle_timeout: limitingDuration.prefault("60s"),
    max_connections: z.int().min(1).max(100_000).default(1024),
  }).prefault({}),
  libvirt: z.strictObject({
    /** The libvirt connection of define, start and the like. */
    connect: z.string().optional(),
  }).prefault({}),
});

export type Settings = {
  /** Absolute. */
  readonly rootDirectory: string;
  readonly registries: RegistrySettings;
  readonly imageLimits: ImageLimits;
  readonly libvirtUri: string;
  readonly cacheBudget: CacheBudget;
  /** Where this user's own configuration lies, QEMU's among it. Absolute. */
  readonly configHome: string;
  readonly api: ApiSettings;
};

/** Of `bootshim serve`. */
export type ApiSettings = {
  readonly maxRunning: number;
  readonly maxPending: number;
  readonly http: {
    readonly headersTimeoutMs: number;
    readonly requestTimeoutMs: number;
    readonly idleTimeoutMs: number;
    readonly maxConnections: number;
  };
  /** Null: never by itself. */
  readonly collectEveryMs: number | null;
  /** Registries that the file names, and callers may therefore use wherever they are. */
  readonly namedRegistries: ReadonlySet<string>;
};

/** What `main.ts` read from the process; everything else is handed on from here. */
export type Environment = {
  readonly isRoot: boolean;
  readonly homeDirectory: string;
  readonly variables: Readonly<Record<string, string | undefined>>;
  readonly workingDirectory: string;
  readonly processId: number;
};

export type SettingFlags = {
  readonly root?: string | undefined;
  readonly config?: string | undefined;
  readonly connect?: string | undefined;
};

/**
 * The settings in force. A variable that is set to nothing counts as not set; so does, as the XDG specification asks, a
 * base directory that is not absolute.
 *
 * @throws {ShimError} CONFIG_INVALID; the message names file, line and key. A file that was asked for must exist, the
 *   default one need not.
 */
export async function loadSettings(flags: SettingFlags, environment: Environment): Promise<Settings> {
  const { variables, isRoot, homeDirectory, workingDirectory } = environment;
  const asked = flags.config ?? (variables["BOOTSHIM_CONFIG"] || undefined);
  const configHome = absoluteOf(variables["XDG_CONFIG_HOME"]) ?? `${homeDirectory}/.config`;
  const path = asked ?? (isRoot ? "/etc/bootshim/config.toml" : `${configHome}/bootshim/config.toml`);
  const file = await readConfigFile(path, asked !== undefined);
  const dataHome = absoluteOf(variables["XDG_DATA_HOME"]) ?? `${homeDirectory}/.local/share`;
  const root = flags.root ?? (variables["BOOTSHIM_ROOT"] || undefined) ?? file.root;
  return {
    rootDirectory: resolve(workingDirectory, root ?? (isRoot ? "/var/lib/bootshim" : `${dataHome}/bootshim`)),
    cacheBudget: {
      maxBytes: file.cache.max_bytes ?? null,
      keepFreeBytes: file.cache.keep_free_bytes ?? null,
      minAgeMs: file.cache.min_age ?? null,
    },
    registries: registrySettingsOf(file, {
      environment,
      hostsDirectory: isRoot ? "/etc/bootshim/certs.d" : `${configHome}/bootshim/certs.d`,
    }),
    imageLimits: {
      maxLayerBytes: file.limits.max_layer_bytes,
      maxImageBytes: file.limits.max_image_bytes,
      maxLayers: file.limits.max_layers,
    },
    libvirtUri: flags.connect ?? file.libvirt.connect ?? (isRoot ? "qemu:///system" : "qemu:///session"),
    configHome,
    api: {
      maxRunning: file.api.max_running,
      maxPending: file.api.max_pending,
      http: {
        headersTimeoutMs: file.api.headers_timeout,
        requestTimeoutMs: file.api.request_timeout,
        idleTimeoutMs: file.api.idle_timeout,
        maxConnections: file.api.max_connections,
      },
      collectEveryMs: file.api.collect_every ?? null,
      namedRegistries: new Set(
        [...file.registry.insecure, ...Object.keys(file.registry.host)].map((name) => name.toLowerCase()),
      ),
    },
  };
}

function absoluteOf(path: string | undefined): string | undefined {
  return path !== undefined && isAbsolute(path) ? path : undefined;
}

async function readConfigFile(path: string, mustExist: boolean): Promise<z.infer<typeof fileSchema>> {
  let text = "";
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    const isMissing = error instanceof Error && "code" in error && error.code === "ENOENT";
    if (mustExist || !isMissing) {
      throw new ShimError(
        "CONFIG_INVALID",
        `Cannot read configuration "${path}": ${error instanceof Error ? error.message : String(error)}`,
        { cause: error },
      );
    }
  }
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    const where = error instanceof TomlError ? ` line ${error.line}` : "";
    const why = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new ShimError("CONFIG_INVALID", `Cannot read configuration "${path}"${where}: ${why}`, {
      cause: error,
    });
  }
  const result = fileSchema.safeParse(document);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const keys = issue?.code === "unrecognized_keys" ? issue.keys : [];
  const keyPath = [...(issue?.path ?? []), ...keys.slice(0, 1)];
  const key = keyPath.map(String).join(".");
  const line = lineOfKey(text, keyPath);
  throw new ShimError(
    "CONFIG_INVALID",
    `Cannot use configuration "${path}"${line ? ` line ${line}` : ""}: key "${key}", ${messageOf(issue)}`,
    {
      cause: result.error,
      details: { path, key, ...(line ? { line } : {}) },
    },
  );
}

/** Of a table's key, zod tells only that something is wrong with it. */
function messageOf(issue: z.core.$ZodIssue | undefined): string {
  const inner = issue?.code === "invalid_key" ? issue.issues[0] : issue;
  return inner?.message ?? "is not valid";
}
