import { MAX_ERROR_BODY_BYTES } from "../limits.ts";
import { readUpTo, type RegistryResponse } from "../transport.ts";
import type { Secret } from "./secret.ts";

/**
 * An answer whose words do not repeat what we said: errors show a server's words, and a server may say our secrets back.
 * Of an error's body at most 64 KiB are read.
 */
export function withoutSecrets(response: RegistryResponse, secrets: readonly Secret[]): RegistryResponse {
  if (response.status < 400 || secrets.length === 0) return response;
  return { ...response, body: redacted(response, secrets) };
}

async function* redacted(
  { body }: RegistryResponse,
  secrets: readonly Secret[],
): AsyncGenerator<Uint8Array> {
  let text = new TextDecoder("latin1").decode(await readUpTo(body, MAX_ERROR_BODY_BYTES));
  for (const secret of secrets) {
    const word = secret.reveal();
    // The header's word alone, too: `Bearer TOKEN`.
    for (const part of new Set([word, word.slice(word.indexOf(" ") + 1)])) {
      for (const spelling of new Set([part, JSON.stringify(part).slice(1, -1), encodeURIComponent(part)])) {
        text = text.replaceAll(spelling, "[secret]");
      }
    }
  }
  yield new Uint8Array(Buffer.from(text, "latin1"));
}
