/** What a part of a line is: a word, the same in all lines of this shape, or a number or a text that each line has its own of. */
export type PartKind = 'word' | 'number' | 'text';

/**
 * The shapes of lines, as a tree: a part, and what was written behind it in one line or another. Lines of a VMM are of few shapes, and the
 * next one is mostly of the shape of the one before, so that to find a line's shape costs a comparison for each of its parts.
 */
export class Part {
  readonly kind: PartKind;
  /** Of a word. */
  readonly word: string;
  readonly #before: Part | undefined;
  /** The number of the shape that ends here; -1 if it has none. */
  shape = -1;
  #last: Part | undefined;
  #words: Map<string, Part> | undefined;
  #number: Part | undefined;
  #text: Part | undefined;

  constructor(kind: PartKind, word = '', before?: Part) {
    this.kind = kind;
    this.word = word;
    this.#before = before;
  }

  /** What comes behind this part: this word. */
  withWord(word: string): Part {
    const last = this.#last;
    if (last !== undefined && last.word === word) return last;
    const words = (this.#words ??= new Map<string, Part>());
    let next = words.get(word);
    if (next === undefined) words.set(word, (next = new Part('word', word, this)));
    this.#last = next;
    return next;
  }

  withNumber(): Part {
    return (this.#number ??= new Part('number', '', this));
  }

  withText(): Part {
    return (this.#text ??= new Part('text', '', this));
  }

  /** All parts up to this one, without the one that begins the tree. */
  get line(): readonly Part[] {
    const parts: Part[] = [];
    // eslint-disable-next-line typescript/no-this-alias -- the list begins with this part
    for (let part: Part = this; part.#before !== undefined; part = part.#before) parts.push(part);
    return parts.reverse();
  }
}
