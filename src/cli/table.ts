/** Lines of a name and what it has; a name without anything is left out. */
export function table(rows: readonly (readonly [name: string, value: string | undefined])[]): string {
  const shown = rows.filter(([, value]) => value !== undefined);
  const width = Math.max(...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join('');
}
