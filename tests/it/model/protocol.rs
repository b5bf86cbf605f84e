//! Which steps there are in a state, and which are explored.
//!
//! What is alike is looked at once: steps that change nothing are none; of a user's two sessions, while both are alike and
//! have done nothing, one stands for both.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use stateright::{Model, Property};

use super::generations::Making;
use super::invariants::Promise;
use super::people::{Chat, USERS, user_of};
use super::rules::{Rule, Scope};
use super::sending::Sending;
use super::store::{State, Store};
use super::transactions::Request;
use super::world::{Step, World};

pub struct Protocol {
    pub chats: usize,
    pub dropped: Option<Rule>,
    pub scope: Scope,
    /// How far the search goes.
    pub steps: usize,
    /// How many steps have been taken and judged.
    pub judged: Arc<AtomicUsize>,
}

impl Protocol {
    const fn is_in_scope(&self, step: Step) -> bool {
        let Scope { additions, removals, sessions, expiry, copies, keys } = self.scope;
        match step {
            Step::Submit(..) | Step::Write(_) | Step::Finish(_) => true,
            Step::RefuseCopy(..) | Step::Sweep => copies,
            Step::RunOut(_) | Step::Begin(Request::Expire { .. }) => expiry,
            Step::Begin(Request::Revoke { .. }) => sessions || keys,
            Step::Begin(Request::Certify { .. }) => sessions,
            Step::Begin(Request::ReplaceUserKey { .. }) | Step::Make(_) | Step::RefuseGeneration(..) => keys,
            Step::Begin(Request::Add { .. }) => additions,
            Step::Begin(Request::Remove { .. } | Request::Leave { .. }) => removals,
        }
    }

    fn drops(&self, rule: Rule) -> bool {
        self.dropped == Some(rule)
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        if self.scope.keys {
            [vec![0], vec![0, 1, 2]].map(|users| World::new(Store::with_user_keys(&users))).into()
        } else {
            vec![World::new(Store::new(self.chats))]
        }
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.broken.is_some() {
            return;
        }
        for chat in 0..self.chats {
            self.steps_of_chat(world, chat, steps);
        }
        for session in world.acting() {
            let row = world.store.sessions[session];
            // Ahead of its time a session is renewed once: more of it is more of the same.
            let is_first = row.state == State::Live && row.place == 1;
            let may_come_in = matches!(row.state, State::Pending | State::Expired) || row.is_over;
            if may_come_in || is_first || self.drops(Rule::RevokedStaysOut) {
                steps.push(Step::Begin(Request::Certify { session }));
            }
            if row.state == State::Live && !row.is_over {
                steps.push(Step::RunOut(session));
            }
            if matches!(row.state, State::Live | State::Expired) {
                let has_key = world.store.user_keys[user_of(session)].active().is_some();
                let ways = [false, true].into_iter().take(1 + usize::from(has_key));
                steps.extend(ways.map(|withdraws| Step::Begin(Request::Revoke { session, withdraws })));
            }
        }
        for user in 0..USERS {
            steps.push(Step::Begin(Request::Expire { user }));
            steps.push(Step::Begin(Request::ReplaceUserKey { user }));
        }
        steps.extend(world.transactions.iter().map(|transaction| Step::Finish(transaction.request)));
        if (0..self.chats).any(|chat| world.has_to_sweep(chat)) {
            steps.push(Step::Sweep);
        }
        steps.retain(|step| self.is_in_scope(*step));
    }

    fn next_state(&self, last: &World, step: Step) -> Option<World> {
        let mut world = last.clone();
        world.steps += 1;
        world.take(step, self.dropped)?;
        self.judged.fetch_add(1, Ordering::Relaxed);
        Some(world)
    }

    /// Worlds at the end of the search have been judged when they came about: only those are kept in which something
    /// does not hold.
    fn within_boundary(&self, world: &World) -> bool {
        world.broken.is_some() || world.steps < self.steps
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn holds(world: &World, promise: Promise) -> bool {
            world.broken.as_ref().is_none_or(|broken| broken.promise != promise)
        }
        vec![
            Property::always("the log", |_, world| holds(world, Promise::Log)),
            Property::always("P4", |_, world| holds(world, Promise::Decryptable)),
            Property::always("P8", |_, world| holds(world, Promise::Password)),
            Property::always("P5", |_, world| holds(world, Promise::ZeroWindow)),
            Property::always("joining", |_, world| holds(world, Promise::Joining)),
            Property::always("sending", |_, world| holds(world, Promise::Sending)),
        ]
    }
}

impl Protocol {
    fn steps_of_chat(&self, world: &World, chat: Chat, steps: &mut Vec<Step>) {
        let row = &world.store.chats[chat];
        let newest = row.views.len() - 1;
        // With something on its way it looks only when it has heard what becomes of that.
        let belief = world.beliefs[chat].as_ref();
        let is_old = belief.is_some_and(|belief| world.has_refused || belief.is_old(&world.store, chat));
        let may_hear = is_old && world.in_flight[chat].is_empty();
        for session in world.acting() {
            let known = (0..=newest).filter(|view| row.views[*view].recipients().contains(session));
            for view in known {
                let as_of = [newest, view].into_iter().take(if view == newest { 1 } else { 2 });
                for as_of in as_of {
                    let receives = row.views[as_of].generation().is_some();
                    for archives in [false, true].into_iter().take(1 + usize::from(receives)) {
                        let sending = Sending { chat, session, made: view, as_of, archives };
                        let hearing = [false, true].into_iter().take(1 + usize::from(may_hear));
                        steps.extend(hearing.map(|has_heard| Step::Submit(sending, has_heard)));
                    }
                }
                steps.push(Step::Begin(Request::Leave { chat, actor: session, view }));
                for target in (0..USERS).filter(|target| *target != user_of(session)) {
                    let is_member = world.store.is_member(chat, target);
                    steps.push(Step::Begin(match is_member {
                        true => Request::Remove { chat, actor: session, target, view },
                        false => Request::Add { chat, actor: session, target, view },
                    }));
                }
            }
        }
        steps.push(Step::Write(chat));
        steps_of_generation(world, chat, steps);
        if world.has_refused {
            return;
        }
        for name in world.store.current_keys(chat) {
            for session in row.keys[&name].copies.iter().filter(|session| *session != name.0) {
                steps.push(Step::RefuseCopy(chat, name, session));
            }
        }
    }
}

/// A generation is made as of each view at which it was due, for the user keys of then or of any time before; a refusal is
/// the same whoever says it.
fn steps_of_generation(world: &World, chat: Chat, steps: &mut Vec<Step>) {
    let views = &world.store.chats[chat].views;
    let recipients = world.store.recipients(chat);
    for session in world.acting().filter(|session| recipients.contains(*session)) {
        let is_due = |view: &usize| views[*view].folded.fold.generation_due().is_some();
        for stated in (0..views.len()).filter(is_due).filter(|view| views[*view].recipients().contains(session)) {
            let keys = |view: usize| views[view].folded.fold.member_keys();
            let wrapped = (0..=stated).filter(|view| *view == stated || keys(*view) != keys(stated));
            steps.extend(wrapped.map(|wrapped| Step::Make(Making { chat, session, stated, wrapped })));
        }
    }
    let refusing = recipients.iter().find(|session| world.store.may_act(*session));
    steps.extend(refusing.map(|session| Step::RefuseGeneration(chat, session)));
}
