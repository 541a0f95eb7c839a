/** What the main thread asks of the one that takes blobs in; each is answered once, those of one file in their order. */
export type BlobRequest =
  & { readonly id: number; readonly file: number }
  & (
    | { readonly kind: "open"; readonly path: string; readonly inode: number; readonly algorithm: string }
    | { readonly kind: "block"; readonly memory: SharedArrayBuffer }
    | {
      readonly kind: "take";
      /** Which of the file's blocks: in the order in which they were made known. */
      readonly block: number;
      readonly lengthBytes: number;
      readonly offsetBytes: number;
    }
    | { readonly kind: "takePresent"; readonly offsetBytes: number; readonly lengthBytes: number }
    | { readonly kind: "hexDigest" }
    | { readonly kind: "close" }
  );

export type BlobResult = number | string | null;

export type BlobReply =
  | { readonly id: number; readonly kind: "result"; readonly result: BlobResult }
  /** `code` is an errno's name, null for what is none. */
  | {
    readonly id: number;
    readonly kind: "failure";
    readonly message: string;
    readonly code: string | null;
  };
