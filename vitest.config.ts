import { defineConfig } from 'vitest/config';

const common = {
  pool: 'forks',
  setupFiles: 'test/support/to-be-bytes.ts',
  testTimeout: 30_000,
  hookTimeout: 30_000,
} as const;

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      {
        test: {
          ...common,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/real/**'],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        // Virtual machines want the processors for themselves: these come last. One often waits, so two files share a machine.
        test: {
          ...common,
          name: 'real',
          include: ['test/real/**/*.test.ts'],
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
    ],
    coverage: { provider: 'v8', include: ['src/**/*.ts'], exclude: ['src/**/index.ts'], reporter: ['text', 'html'] },
  },
});
