/*
 * A recording may come from anybody, and its names get into pictures: none may become markup, or tell a terminal something.
 */

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
};

/** Text for XML and HTML, within elements and attributes. What XML 1.0 has no character for becomes U+FFFD. */
export function escaped(text: string): string {
  return wellFormed(text).replaceAll(/[&<>"']/g, (sign) => ENTITIES[sign] ?? '');
}

/** Text without control characters, halves of surrogate pairs, and signs that turn the direction of what follows. */
export function wellFormed(text: string): string {
  return text.replaceAll(
    // oxlint-disable-next-line no-control-regex -- these are what is replaced
    /[\u0000-\u001F\u007F-\u009F\uFFFE\uFFFF]|[\u200E\u200F\u202A-\u202E\u2066-\u2069]|\p{Surrogate}/gu,
    '\uFFFD',
  );
}

/** A value as JSON that can stand within `<script>`, which nothing in it ends. */
export function jsonInHtml(value: unknown): string {
  return JSON.stringify(value).replaceAll('<', '\\u003c');
}
