import { ShimError } from "../../errors.ts";

/** One way of logging in that a server offers. */
export type Challenge = {
  /** In lower case. */
  readonly scheme: string;
  /** Names in lower case, values unquoted. Empty for a scheme that gives a token68 instead. */
  readonly parameters: ReadonlyMap<string, string>;
};

const MAX_LENGTH = 64 * 1024;
const MAX_CHALLENGES = 16;
const MAX_PARAMETERS = 32;

/** RFC 9110, 5.6.2. All patterns are sticky and without nested repetition, so a header is read in one pass. */
const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
const SPACES = /[ \t]*/y;
/** Commas may stand for empty elements, too. */
const SEPARATOR = /[ \t]*(?:,[ \t]*)*/y;
const EQUALS = /[ \t]*=[ \t]*/y;
/** 5.6.4; what a quoted string may not hold cannot come out of one. */
const QUOTED = /"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\uffff]|\\[\t \x21-\x7e\x80-\uffff])*)"/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|$))/y;

/**
 * Reads the fields `WWW-Authenticate` of one answer: one or several, each with one or several challenges.
 *
 * @param action completes "Cannot …"
 * @throws {ShimError} REGISTRY_PROTOCOL when one is not what RFC 9110 says, names a parameter twice, or is excessive:
 *   what is half understood is not guessed at
 * @see https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
 */
export function parseChallenges(fields: readonly string[], action: string): readonly Challenge[] {
  const refuse = (why: string): never => {
    throw new ShimError("REGISTRY_PROTOCOL", `Cannot ${action}: its WWW-Authenticate ${why}`);
  };
  if (fields.reduce((length, field) => length + field.length, 0) > MAX_LENGTH) refuse("is too long");
  const challenges = fields.flatMap((field) => readField(field, refuse));
  if (challenges.length > MAX_CHALLENGES) refuse(`has over ${MAX_CHALLENGES} challenges`);
  return challenges;
}

function readField(field: string, refuse: (why: string) => never): readonly Challenge[] {
  let position = 0;
  const take = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = position;
    const match = pattern.exec(field);
    if (match !== null) position = pattern.lastIndex;
    return match;
  };
  const takeWord = () =>
    take(TOKEN)?.[0] ?? refuse(`has something else than a word at character ${position}`);
  const takeValue = () =>
    take(QUOTED)?.[1]?.replaceAll(/\\(.)/g, "$1") ?? take(TOKEN)?.[0] ??
      refuse(`has no value at character ${position}`);
  const isAtEnd = () => position === field.length || field[position] === ",";
  const challenges: { readonly scheme: string; readonly parameters: Map<string, string> }[] = [];
  let takesParameters = false;
  const addParameter = (name: string) => {
    const parameters = challenges.at(-1)?.parameters ?? refuse("begins with a parameter");
    if (parameters.has(name)) refuse("has a parameter twice");
    if (parameters.size === MAX_PARAMETERS) refuse(`has over ${MAX_PARAMETERS} parameters`);
    parameters.set(name, takeValue());
  };
  take(SEPARATOR);
  while (position < field.length) {
    const word = takeWord().toLowerCase();
    // `name = value` goes on with the challenge before it; anything else begins one.
    if (takesParameters && take(EQUALS) !== null) {
      addParameter(word);
    } else {
      if (challenges.length === MAX_CHALLENGES) refuse(`has over ${MAX_CHALLENGES} challenges`);
      challenges.push({ scheme: word, parameters: new Map() });
      const spaces = take(SPACES)?.[0] ?? "";
      if (!isAtEnd() && spaces === "") refuse(`has something else than a space at character ${position}`);
      takesParameters = isAtEnd() || take(TOKEN68) === null;
      if (takesParameters && !isAtEnd()) {
        const name = takeWord().toLowerCase();
        if (take(EQUALS) === null) refuse(`has no "=" at character ${position}`);
        addParameter(name);
      }
    }
    const end = position;
    take(SEPARATOR);
    if (position < field.length && !field.slice(end, position).includes(",")) {
      refuse(`has no comma at character ${end}`);
    }
  }
  return challenges;
}
