import fc from "fast-check";

/** Of JSON Schema, what our own document uses. */
export type JsonSchema = {
  readonly $ref?: string;
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly additionalProperties?: boolean | JsonSchema;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly maxLength?: number;
  readonly minLength?: number;
  readonly pattern?: string;
  readonly format?: string;
  readonly contentEncoding?: string;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly multipleOf?: number;
  readonly maxItems?: number;
};

/** Drawn in place of a free text of this name: nearly all random words would be refused at the door. */
export type KnownWords = Readonly<Record<string, readonly string[]>>;

/** Values that a schema allows, the smallest and the largest more often than chance would have it. */
export function validValues(schema: JsonSchema, words: KnownWords = {}, name = ""): fc.Arbitrary<unknown> {
  if (schema.enum) return fc.constantFrom(...schema.enum);
  if (schema.const !== undefined) return fc.constant(schema.const);
  if (schema.anyOf) return fc.oneof(...schema.anyOf.map((each) => validValues(each, words, name)));
  switch (schema.type) {
    case "object":
      return validObjects(schema, words);
    case "array":
      return fc.array(validValues(schema.items ?? {}, words, name), {
        maxLength: Math.min(schema.maxItems ?? 4, 4),
      });
    case "boolean":
      return fc.boolean();
    case "integer":
    case "number":
      return validNumbers(schema);
    case "string":
      return validTexts(schema, words[name]);
    default:
      return fc.jsonValue();
  }
}

/** Optional fields are there once in a few times: all of them at once are hardly ever a wish that can be met. */
function validObjects(schema: JsonSchema, words: KnownWords): fc.Arbitrary<unknown> {
  const fields = Object.entries(schema.properties ?? {}).map(([name, field]) => {
    const values = validValues(field, words, name);
    const isRequired = schema.required?.includes(name) ?? false;
    return [name, isRequired ? values : rarely(values)] as const;
  });
  return fc.record(Object.fromEntries(fields)).map((drawn) =>
    Object.fromEntries(Object.entries(drawn).filter(([, value]) => value !== undefined))
  );
}

function rarely(values: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 6, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary: values });
}

function validNumbers({ minimum = -1000, maximum = Number.MAX_SAFE_INTEGER, multipleOf = 1 }: JsonSchema) {
  const least = Math.ceil(minimum / multipleOf);
  const most = Math.floor(maximum / multipleOf);
  return fc.oneof(
    fc.integer({ min: least, max: Math.min(most, least + 5000) }),
    fc.maxSafeInteger().map((drawn) => Math.min(most, Math.max(least, drawn))),
    fc.constantFrom(least, most),
  ).map((times) => times * multipleOf);
}

function validTexts(schema: JsonSchema, known: readonly string[] = []): fc.Arbitrary<string> {
  const { minLength = 0, maxLength = 200, format, contentEncoding, pattern } = schema;
  // Of every version and variant, and of none: what has the form is one here.
  if (format === "uuid" || format === "guid") {
    return fc.stringMatching(/^[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$/);
  }
  if (contentEncoding === "base64") {
    return fc.uint8Array().map((bytes) => Buffer.from(bytes).toString("base64"));
  }
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern));
  const free = fc.string({ minLength, maxLength: Math.min(maxLength, 200), unit: "binary" });
  return known.length === 0
    ? free
    : fc.oneof({ weight: 15, arbitrary: fc.constantFrom(...known) }, { weight: 1, arbitrary: free });
}

/** A JSON value with one thing in it put wrong: another type, a field too many or too few, or at random. */
export function spoiled(valid: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  return fc.tuple(valid, fc.nat(), fc.jsonValue(), fc.constantFrom("replace", "drop", "add")).map(
    ([value, place, other, how]) => {
      const copy = structuredClone(value);
      const places: [Record<string, unknown>, string][] = [];
      collect(copy, places);
      const chosen = places[place % Math.max(1, places.length)];
      if (!chosen) return other;
      const [owner, key] = chosen;
      if (how === "drop") delete owner[key];
      else if (how === "add") owner[`${key}x`] = other;
      else owner[key] = other;
      return copy;
    },
  );
}

function collect(value: unknown, places: [Record<string, unknown>, string][]): void {
  if (typeof value !== "object" || value === null) return;
  const owner = value as Record<string, unknown>;
  for (const key of Object.keys(owner)) {
    places.push([owner, key]);
    collect(owner[key], places);
  }
}
