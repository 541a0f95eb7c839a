import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { z } from "zod";
import { CODES, type ErrorCode, ShimError } from "../errors.ts";
import { errnoOf } from "../host/io_error.ts";
import { loosened } from "./loosened.ts";
import { problemDocument } from "./problem.ts";
import { cancelled, ServiceAway } from "./service_absence.ts";

/** Where a service listens: its unix socket, or the loopback address it was told to listen on in addition. */
export type ServicePlace = { readonly socketPath: string } | { readonly url: string };

export type Sent = {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  readonly path: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
};

/** More than any answer has: ten thousand images, or machines. */
const MAX_ANSWER_BYTES = 256 * 1024 * 1024;

const ignore = () => {};

/**
 * Sends one request; the answer's body is still to be read.
 *
 * @throws {ShimError} the service's own error, with its code and details; CANCELLED
 * @throws {ServiceAway} IO_ERROR, when nobody answers there
 */
export async function send(place: ServicePlace, sent: Sent): Promise<IncomingMessage> {
  const { method, path, body, headers = {}, signal } = sent;
  const content = body === undefined ? undefined : new TextEncoder().encode(JSON.stringify(body));
  const options = {
    method,
    headers: {
      ...headers,
      ...(content ? { "content-type": "application/json", "content-length": String(content.length) } : {}),
    },
    ...(signal ? { signal } : {}),
  };
  const outgoing = "socketPath" in place
    ? request({ ...options, socketPath: place.socketPath, path, host: "bootshim" })
    : request(new URL(path, place.url), options);
  // Once it is answered, what is left of the body is of no interest to anybody, nor that it did not get through.
  outgoing.on("error", ignore);
  outgoing.once("socket", (socket) => {
    // One for all requests of a connection.
    if (!socket.listeners("error").includes(ignore)) socket.on("error", ignore);
  });
  outgoing.end(content);
  let answer: IncomingMessage;
  try {
    [answer] = await once(outgoing, "response");
  } catch (error) {
    throw notAnswered(error, place, signal);
  }
  if ((answer.statusCode ?? 500) < 400) return answer;
  throw failureOf(await readText(answer, signal), answer.statusCode ?? 500);
}

/**
 * Reads an answer to its end.
 *
 * @throws {ServiceAway} IO_ERROR, when it breaks off
 * @throws {ShimError} LIMIT_EXCEEDED, CANCELLED
 */
export async function readText(answer: IncomingMessage, signal: AbortSignal | undefined): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  try {
    for await (const chunk of answer) {
      text += decoder.decode(chunk, { stream: true });
      if (text.length <= MAX_ANSWER_BYTES) continue;
      throw new ShimError(
        "LIMIT_EXCEEDED",
        `Cannot read the service's answer: over ${MAX_ANSWER_BYTES} characters`,
      );
    }
  } catch (error) {
    if (error instanceof ShimError) throw error;
    if (signal?.aborted) throw cancelled(signal, error);
    throw new ServiceAway("IO_ERROR", `Cannot read the service's answer: ${error}`, { cause: error });
  }
  return text;
}

function notAnswered(error: unknown, place: ServicePlace, signal: AbortSignal | undefined): ShimError {
  if (signal?.aborted) return cancelled(signal, error);
  const where = "socketPath" in place ? place.socketPath : place.url;
  return new ServiceAway("IO_ERROR", `Cannot reach the service at "${where}": ${errnoOf(error) ?? error}`, {
    cause: error,
    details: { remedy: "start it: bootshim serve" },
  });
}

const isCode = (word: string): word is ErrorCode => Object.hasOwn(CODES, word);

/** An error in the service's words. One that is no problem document is somebody else's. */
function failureOf(text: string, status: number): ShimError {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    value = undefined;
  }
  const problem = loosened(problemDocument).safeParse(value);
  if (!problem.success) {
    return new ShimError("INTERNAL", `Cannot go on: what answered with status ${status} is no such service`);
  }
  const { code, detail, details } = problem.data;
  return errorOf({ code, message: detail, details });
}

/** An error that was told as JSON. A code of a newer service's is INTERNAL here, and told in the details. */
export function errorOf(
  { code, message, details }: {
    readonly code: string;
    readonly message: string;
    readonly details: Readonly<Record<string, unknown>>;
  },
): ShimError {
  return isCode(code)
    ? new ShimError(code, message, { details })
    : new ShimError("INTERNAL", message, { details: { ...details, code } });
}

/**
 * Parses an answer's JSON; what a newer service adds passes.
 *
 * @throws {ShimError} INTERNAL when it is of another shape: the service is of another kind
 */
export function parseAnswer<T>(text: string, schema: z.ZodType<T>): T {
  try {
    return loosened(schema).parse(JSON.parse(text));
  } catch (error) {
    throw new ShimError("INTERNAL", "Cannot use the service's answer: it is of another version", {
      cause: error,
    });
  }
}
