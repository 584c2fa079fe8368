/** The same with pages of 16 KiB. */
await import('./arm64.ts');
