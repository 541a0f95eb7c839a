import { type ChildProcess, spawn } from "node:child_process";
import { z } from "zod";
import { ShimError } from "../../errors.ts";
import { errnoOf } from "../../host/io_error.ts";
import { type Credential, identityCredential, invalidCredentials, passwordCredential } from "./credential.ts";

export type HelperOptions = {
  /** All that a helper finds in its environment; PATH is where it is looked for. */
  readonly environment: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
};

export const HELPER_TIMEOUT_MS = 5_000;
const MAX_OUTPUT_BYTES = 64 * 1024;
/** The name becomes part of a program's name, so it may not lead out of PATH. */
const NAME = /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$/;
/** What docker's helpers say, on stdout, of a registry they do not know. */
const NOT_FOUND = /^credentials not found/;

const helperAnswer = z.object({ Username: z.string(), Secret: z.string() });

/**
 * Asks `docker-credential-NAME get` for a registry's credentials. The server goes in by stdin and the answer comes back
 * by stdout, so no process list shows them. The helper and all it started are gone when this settles.
 *
 * @param server as docker would name it
 * @returns undefined when the helper knows none
 * @throws {ShimError} CREDENTIALS_INVALID
 * @see https://github.com/docker/docker-credential-helpers#development
 */
export async function askCredentialHelper(
  name: string,
  { server, ...options }: HelperOptions & { readonly server: string },
): Promise<Credential | undefined> {
  const place = `credential helper "docker-credential-${name.slice(0, 64)}"`;
  if (!NAME.test(name)) {
    throw invalidCredentials(
      "a credential helper",
      `${JSON.stringify(name.slice(0, 64))} is no helper's name`,
    );
  }
  const { exitCode, output } = await runHelper(`docker-credential-${name}`, { ...options, server, place });
  const text = output.toString("utf8").trim();
  if (exitCode !== 0) {
    if (NOT_FOUND.test(text)) return undefined;
    // Its words are not repeated: what a failing helper prints may hold anything.
    throw invalidCredentials(
      place,
      exitCode === null ? "it was killed" : `it ended with exit code ${exitCode}`,
      {
        remedy: `try it: echo ${server} | docker-credential-${name} get`,
      },
    );
  }
  const answer = parseAnswer(text);
  if (answer === undefined) {
    throw invalidCredentials(place, "its answer is not a document with Username and Secret");
  }
  const { Username, Secret } = answer;
  if (Username === "<token>") return identityCredential(Secret, place);
  return passwordCredential(Username, Secret, place);
}

function parseAnswer(text: string): z.infer<typeof helperAnswer> | undefined {
  try {
    return helperAnswer.parse(JSON.parse(text));
  } catch {
    // Whatever it is, it may hold a secret.
    return undefined;
  }
}

type HelperEnd = { readonly exitCode: number | null; readonly output: Buffer };

function runHelper(
  program: string,
  { server, place, environment, timeoutMs }: HelperOptions & { server: string; place: string },
): Promise<HelperEnd> {
  return new Promise((resolve, reject) => {
    let child: ChildProcess;
    try {
      // A group of its own, so that what it starts ends with it.
      child = spawn(program, ["get"], {
        env: { ...environment },
        detached: true,
        stdio: ["pipe", "pipe", "ignore"],
      });
    } catch (error) {
      return reject(cannotStart(place, error));
    }
    const chunks: Uint8Array[] = [];
    let sizeBytes = 0;
    const settle = (outcome: HelperEnd | ShimError) => {
      clearTimeout(timer);
      endGroup(child);
      if (outcome instanceof ShimError) reject(outcome);
      else resolve(outcome);
    };
    const timer = setTimeout(
      () => settle(invalidCredentials(place, `it was still running after ${timeoutMs} ms`)),
      timeoutMs,
    );
    child.once("error", (error) => settle(cannotStart(place, error)));
    child.stdout?.on("data", (chunk: Uint8Array) => {
      sizeBytes += chunk.length;
      if (sizeBytes <= MAX_OUTPUT_BYTES) chunks.push(chunk);
      else settle(invalidCredentials(place, `its answer is over ${MAX_OUTPUT_BYTES} bytes`));
    });
    child.once("close", (exitCode) => settle({ exitCode, output: Buffer.concat(chunks) }));
    // A helper that does not read what it is asked has ended, and its end is told above.
    child.stdin?.on("error", () => {});
    child.stdin?.end(`${server}\n`);
  });
}

/** Also of a helper that has ended: what it started and left behind is still of its group. */
function endGroup(child: ChildProcess): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, "SIGKILL");
  } catch (error) {
    if (errnoOf(error) !== "ESRCH") throw error;
  }
}

function cannotStart(place: string, error: unknown): ShimError {
  const errno = errnoOf(error) ?? "unknown";
  const why = errno === "ENOENT" ? "no program of that name is in PATH" : `it cannot be started (${errno})`;
  return invalidCredentials(place, why, { cause: error, remedy: "install it, or correct its name" });
}
