import type { ReactNode } from "react";
import type { Session, Status } from "./unbroken.js";

export interface SessionFacts<User = any> {
  session: Session<User>;
  status: Status<User>;
  state: Status["state"];
  /** Who is logged in. */
  user: User | undefined;
  /** False also as long as it is not known: see `session.ready`. */
  isLoggedIn: boolean;
  login: Session<User>["login"];
  logout: Session<User>["logout"];
}

/** Give the components below it a session. */
export declare function SessionProvider(props: { session: Session<any>; children?: ReactNode }): ReactNode;

/** Return the session of the provider, or a given one. The component renders again when its status has changed. */
export declare function useSession<User = any>(session?: Session<User>): SessionFacts<User>;

/** Show the children to users who are logged in; lead others to the login page, with the way back. */
export declare function RequireLogin(props: {
  children?: ReactNode;
  session?: Session<any>;
  /** Is shown while it is not known whether there is a session. */
  pending?: ReactNode;
  /**
   * The path of the login page, to which the page goes as a whole. Default: `/login`. With a router: what to show, for
   * example `(back) => <Navigate to={"/login?back=" + back} />`.
   */
  login?: string | ((back: string) => ReactNode);
}): ReactNode;

/** Return the path that the login page has as `back`, if it is one of this site; otherwise `home`. */
export declare function wayBack(back: unknown, home?: string): string;
