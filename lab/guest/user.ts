/** The ordinary user that the guest has besides root. */
export const USER = 1000;

/** Makes this job an ordinary user's from here on; the devices it needs exist by then, with groups of that user. */
export function becomeUser(): void {
  process.setgroups?.([USER]);
  process.setgid?.(USER);
  process.setuid?.(USER);
  process.env['HOME'] = '/tmp';
}
