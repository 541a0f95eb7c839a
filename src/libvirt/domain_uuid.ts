import type { DomainPointer, LibvirtBindings } from "./bindings.ts";

/** 36 characters and a NUL: VIR_UUID_STRING_BUFLEN. */
const UUID_BYTES = 37;

/** The UUID a domain pointer carries; null when libvirt fails, with this thread's last error telling why. */
export function domainUuid(bindings: LibvirtBindings, domain: DomainPointer): string | null {
  const text = new Uint8Array(UUID_BYTES);
  if (bindings.domainGetUuidString(domain, text) < 0) return null;
  return new TextDecoder().decode(text.subarray(0, UUID_BYTES - 1));
}
