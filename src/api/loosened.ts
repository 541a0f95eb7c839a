import { z } from "zod";

/** By the schema they were made of: each is made once. */
const made = new WeakMap<z.ZodType, z.ZodType>();

/**
 * The same schema for a reader that may be older than who wrote: fields it does not know pass, at any depth. The service
 * itself stays strict with what it answers, so that its description is exact.
 */
export function loosened<T>(schema: z.ZodType<T>): z.ZodType<T> {
  const loose = made.get(schema) ?? loosen(schema);
  made.set(schema, loose);
  // Whatever fits the strict one has the same value by the loose one, which zod's types cannot say.
  return loose as z.ZodType<T>;
}

function loosen(schema: z.core.$ZodType): z.ZodType {
  if (schema instanceof z.ZodObject) {
    const fields = Object.entries(schema.shape);
    return z.looseObject(Object.fromEntries(fields.map(([name, field]) => [name, loosen(field)])));
  }
  if (schema instanceof z.ZodArray) return z.array(loosen(schema.element));
  if (schema instanceof z.ZodOptional) return z.optional(loosen(schema.unwrap()));
  if (schema instanceof z.ZodNullable) return z.nullable(loosen(schema.unwrap()));
  // A leaf, or what is open already.
  return schema as z.ZodType;
}
