/**
 * Runs an action and returns what memory holds after each store that it makes there: what a successor finds if the
 * process was killed between two stores. A copy of many bytes may also have been cut off anywhere. The first entry is the
 * memory before, the last the memory afterwards.
 */
export function crashes(memory: Uint8Array, action: () => void): Uint8Array[] {
  const images: Uint8Array[] = [memory.slice()];
  const note = (): void => void images.push(memory.slice());
  const within = (view: ArrayBufferView): boolean => view.buffer === memory.buffer;
  const undo: (() => void)[] = [];

  function wrap<P extends object, K extends keyof P>(prototype: P, key: K, wrapped: (original: P[K]) => P[K]): void {
    const original = prototype[key];
    prototype[key] = wrapped(original);
    undo.push(() => (prototype[key] = original));
  }

  type Setter = (this: DataView, at: number, value: never, little?: boolean) => void;
  const setters = ['setUint8', 'setUint16', 'setUint32', 'setInt32', 'setBigUint64', 'setBigInt64'] as const;
  for (const name of setters) {
    wrap(DataView.prototype as unknown as Record<(typeof setters)[number], Setter>, name, (original) => {
      return function store(this: DataView, at, value, little) {
        original.call(this, at, value, little);
        if (within(this)) note();
      };
    });
  }
  type Copier = (this: Uint8Array, from: Uint8Array, at?: number) => void;
  const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as { set: Copier };
  wrap(typedArray, 'set', (original) => {
    return function copy(this: Uint8Array, from, at = 0) {
      if (within(this) && from.length > 1) {
        for (const part of [1, from.length >> 1, from.length - 1]) {
          original.call(this, from.slice(0, part), at);
          note();
        }
      }
      original.call(this, from, at);
      if (within(this)) note();
    };
  });
  try {
    action();
  } finally {
    for (const restore of undo.toReversed()) restore();
  }
  note();
  return images;
}
